package backfill_test

import (
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// timed is how long a job took: until the last repo of the healthy hosts was
// settled, and in all.
type timed struct{ healthy, all time.Duration }

// TestHealthyHostsDoNotWaitForOthers reads a network with hosts that are dead, half
// dead, stalled, slow and limited, and at the same time, with the same limits, one
// of the healthy hosts alone. There are fewer places than hosts, and the limits
// decide how long it takes, not the processor.
func TestHealthyHostsDoNotWaitForOthers(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	const (
		perHost = 20
		healthy = 24
		bad     = 16
	)
	o := options{config: backfill.Config{MaxHosts: 12, Turn: 500 * time.Millisecond, Attempts: 3, Retry: 100 * time.Millisecond}}
	o.network.HostRPS = 16
	stalled := patient(600 * time.Millisecond) // is what does nothing for so long
	timing := network.Timing{
		Header: stalled, BodyIdle: stalled, Connect: stalled, TLS: stalled,
		Probe: 100 * time.Millisecond, MaxProbe: 300 * time.Millisecond, Pause: time.Second,
	}
	o.network.Timing = timing
	run := func(hosts int, spoil func(*rig) map[string]bool) timed {
		r := newRigWith(t, sandbox.Config{Seed: 120, Repos: perHost * hosts, Hosts: hosts, Collections: statuses(1, 1)}, o)
		spoiled := spoil(r)
		began := time.Now()
		var took timed
		job := r.await(r.create(jobs.Request{Collection: status}), "done", func(j jobs.Job) bool {
			if took.healthy == 0 && r.settledBut(j, spoiled) == perHost*healthy {
				took.healthy = time.Since(began)
			}
			return j.Status.Final()
		})
		took.all = time.Since(began)
		if exact := job.Reasons["exact"]; job.Status != api.StatusCompleted || exact < perHost*healthy || took.healthy == 0 {
			t.Errorf("after %v: %+v", took, job)
		}
		for host := range spoiled {
			if r.world.Faults(host) == 0 {
				t.Errorf("nothing is wrong with %s", host)
			}
		}
		for _, url := range r.world.HostURLs() {
			if _, most := r.world.InFlight(url); most > network.DefaultPerHost {
				t.Errorf("%d requests at once to %s", most, url)
			}
		}
		return took
	}
	var alone, among timed
	var both sync.WaitGroup
	both.Go(func() { alone = run(healthy, func(*rig) map[string]bool { return nil }) })
	both.Go(func() {
		among = run(healthy+bad, func(r *rig) map[string]bool {
			kinds := []sandbox.Fault{
				{Status: http.StatusBadGateway, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<html>Bad Gateway</html>")},
				{Hang: true},
				{Drip: 100 * time.Millisecond},
				{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7200"}}},
			}
			faults := map[string]sandbox.Fault{}
			for i := range bad {
				url := r.world.HostURLs()[i*(healthy+bad)/bad]
				f := kinds[i%len(kinds)]
				f.Name = url
				faults[url] = f
			}
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				f := faults[q.Host]
				if half := len(q.Host) > 0 && q.Host[len(q.Host)-1]%2 == 0; half && f.Hang && q.Method == repoStatus {
					return sandbox.Fault{} // it says how the repo is, and then nothing more
				}
				return f
			})
			spoiled := map[string]bool{}
			for url := range maps.Keys(faults) {
				spoiled[url] = true
			}
			return spoiled
		})
	})
	both.Wait()
	t.Logf("healthy hosts alone: %v, among others: %v", alone, among)
	if ratio := among.healthy.Seconds() / alone.healthy.Seconds(); ratio > 1.3 {
		t.Errorf("among others, the healthy hosts took %.2f times as long", ratio)
	}
	// Five probes, each as long as a request can stand still, and the waits between them.
	window := 7*(timing.Connect+timing.TLS+timing.Header+timing.BodyIdle) + 6*timing.MaxProbe
	if tail := among.all - among.healthy; tail > window {
		t.Errorf("the others took %s more, want at most %s", tail, window)
	}
}

// settledBut is how many repos are settled of the hosts that are not left out.
func (r *rig) settledBut(job jobs.Job, leftOut map[string]bool) (n int) {
	r.t.Helper()
	hosts, err := r.store.Jobs.JobHosts(r.t.Context(), job.Seq)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range hosts {
		if !leftOut[h.Host] {
			n += int(h.Completed + h.Failed)
		}
	}
	return n
}

// TestNothingWaitsForCompanyThatDoesNotCome has a store that commits nothing of what
// jobs read before it is told to hurry.
func TestNothingWaitsForCompanyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 31, Repos: 60, Hosts: 3}, options{store: store.Config{FlushEvery: 24 * time.Hour}})
	r.complete(jobs.Request{Collection: status})
	r.complete(jobs.Request{DID: r.world.Repos()[7].DID})
	r.wantTruth(status)
}
