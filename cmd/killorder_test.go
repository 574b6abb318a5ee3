package cmd

import (
	"maps"
	"net/http"
	"sync/atomic"
	"testing"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

// TestKilledInTheMiddleOfAListingUpwards kills the server twice while it lists a long repo
// at a host that lists the lowest key first, repeats a record at each border of its pages,
// and gives no repo in one piece.
func TestKilledInTheMiddleOfAListingUpwards(t *testing.T) {
	t.Parallel()
	const records = 5_000
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 43, Repos: 1, Hosts: 1,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: records, MaxRecords: records}},
	})
	upwards := zoo.UpwardPages(100)
	world.Assign(world.Repos()[0].DID, upwards)
	dir := t.TempDir()
	listOnly := func(pages int64) *atomic.Int64 {
		var served atomic.Int64
		world.SetFault(func(r sandbox.Request) sandbox.Fault {
			switch {
			case r.Method == "com.atproto.sync.getRepo":
				return sandbox.Fault{Name: "no getRepo", Status: http.StatusNotImplemented, Body: []byte(`{"error":"MethodNotImplemented"}`)}
			case r.Method == listRecords && served.Add(1) > pages:
				return sandbox.Fault{Hang: true}
			}
			return sandbox.Fault{}
		})
		return &served
	}
	for _, pages := range []int64{17, 20} {
		served := listOnly(pages)
		c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
			"--allow-private-hosts", "--host-rps", "10000", "--plc-rps", "10000", "--collection", sandbox.StatusCollection.String())
		c.log.wait(t, "msg=serving")
		until(t, "the listing is in the middle", func() bool { return served.Load() > pages })
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.wait()
	}
	listOnly(1 << 30)
	world.ResetRequests()
	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	s.log.wait(t, `msg="job ended"`)
	if got, truth := exported(t, dir), truthOf(world); len(truth) != records || !maps.Equal(got, truth) {
		t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truth))
	}
	if counters := counted(t, dir); counters["total_records"] != float64(records) || counters["created_records"] != float64(records) {
		t.Errorf("counted: %v", counters)
	}
	begun := world.Requests(func(r sandbox.Request) bool { return r.Method == listRecords && r.Cursor == "" })
	if len(begun) != 0 || world.Faults(upwards.Name) == 0 || world.Faults("no getRepo") == 0 {
		t.Errorf("begun anew %d times; pages upwards %d, refusals of getRepo %d", len(begun), world.Faults(upwards.Name), world.Faults("no getRepo"))
	}
	s.end()
	want(t, exitOK, "", nil, "check", "--data-dir", dir)
}
