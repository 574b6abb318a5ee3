package cmd

import (
	"encoding/json"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"appview/cmd/term"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store/storetest"
)

// TestPausesOutliveTheServer has hosts, the relay and the directory ask to be left alone
// in every way there is, ends the server a second later, by TERM and by KILL, and starts
// it again: who wanted to be left alone is.
func TestPausesOutliveTheServer(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	const most = 300
	quota := func(a sandbox.Answer) sandbox.Answer {
		a.Header.Set("RateLimit-Limit", "3000")
		a.Header.Set("RateLimit-Remaining", "0")
		a.Header.Set("RateLimit-Reset", strconv.Itoa(most))
		return a
	}
	asks := http.Header{"Retry-After": {strconv.Itoa(most)}}
	for name, k := range map[string]struct {
		part    sandbox.Part
		waiting string
		fault   sandbox.Fault
	}{
		"a host's 429":              {sandbox.PartPDS, "hosts", sandbox.Fault{Status: http.StatusTooManyRequests, Header: asks}},
		"a host's 429, wordless":    {sandbox.PartPDS, "hosts", sandbox.Fault{Status: http.StatusTooManyRequests}},
		"a host's 503":              {sandbox.PartPDS, "hosts", sandbox.Fault{Status: http.StatusServiceUnavailable, Header: asks}},
		"a host's spent quota":      {sandbox.PartPDS, "hosts", sandbox.Fault{Rewrite: quota}},
		"a host that is away":       {sandbox.PartPDS, "hosts", sandbox.Fault{Status: http.StatusBadGateway}},
		"the relay's 429":           {sandbox.PartRelay, "relay", sandbox.Fault{Status: http.StatusTooManyRequests, Header: asks}},
		"the relay's spent quota":   {sandbox.PartRelay, "relay", sandbox.Fault{Rewrite: quota}},
		"the directory's 429":       {sandbox.PartPLC, "directory", sandbox.Fault{Status: http.StatusTooManyRequests, Header: asks}},
		"a directory that is away":  {sandbox.PartPLC, "directory", sandbox.Fault{Status: http.StatusBadGateway}},
		"the directory's own quota": {sandbox.PartPLC, "directory", sandbox.Fault{Rewrite: quota}},
	} {
		for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(name+", "+how.String(), func(t *testing.T) {
				t.Parallel()
				noSignals(t)
				world := sandboxtest.Start(t, sandbox.Config{
					Seed: 150, Repos: 1100, Hosts: 1, // so many that the relay has a second page
					Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 1, MaxRecords: 1}},
				})
				world.SetFault(func(q sandbox.Request) sandbox.Fault {
					if q.Part != k.part {
						return sandbox.Fault{}
					}
					f := k.fault
					f.Name = "wait"
					return f
				})
				dir := t.TempDir()
				serveAgain := func() *child {
					c := startChild(t, nil, sandboxed(world, dir, "--collection", sandbox.StatusCollection.String())...)
					c.log.wait(t, "msg=serving")
					until(t, "the job waits", func() bool { return waitingOf(t, dir) == k.waiting })
					return c
				}
				began := time.Now()
				c := serveAgain()
				if world.Faults("wait") == 0 {
					t.Fatal("nobody was asked")
				}
				second := time.NewTimer(time.Second)
				<-second.C
				if how == syscall.SIGTERM {
					c.terminate(exitOK)
				} else {
					if err := c.cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
					c.wait()
				}
				world.ResetRequests()
				c = serveAgain()
				// What does not answer is probed after ten seconds.
				if k.fault.Status == http.StatusBadGateway && time.Since(began) > 8*time.Second {
					t.Skip("this machine is too busy for it")
				}
				if list := world.Requests(func(q sandbox.Request) bool { return q.Part == k.part }); len(list) != 0 {
					t.Errorf("after the restart it is asked %d times, first %+v", len(list), list[0])
				}
				c.terminate(exitOK)
			})
		}
	}
}

// waitingOf is what the newest job waits for.
func waitingOf(t *testing.T, dir string) string {
	t.Helper()
	id := newestJob(t, dir).ID
	if id == "" {
		return ""
	}
	var j term.Job
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+id), &j); err != nil {
		t.Fatal(err)
	}
	if j.Waiting == nil {
		return ""
	}
	return string(*j.Waiting)
}
