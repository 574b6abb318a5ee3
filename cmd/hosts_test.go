package cmd

import (
	"net/http"
	"strings"
	"testing"

	"appview/internal/sandbox"
)

func TestHostsThatAreParkedOrDownAreShown(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	limits, dead := world.HostURLs()[0], world.HostURLs()[1]
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part != sandbox.PartPDS:
		case q.Host == limits:
			return sandbox.Fault{Name: "limit", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3000"}}}
		case q.Host == dead:
			return sandbox.Fault{Name: "dead", Status: http.StatusBadGateway, Body: []byte("<html>")}
		}
		return sandbox.Fault{}
	})
	s := serveIn(t, world, dir)
	id := strings.Fields(want(t, exitOK, "created job ", nil, "backfill", "create", "--data-dir", dir))[2]
	states := map[string]string{}
	until(t, "one host is parked, one is down, and the rest is done", func() bool {
		_, stdout, _ := runs(t, nil, "backfill", "hosts", id, "--data-dir", dir)
		for line := range strings.Lines(stdout) {
			if cells := strings.Fields(line); len(cells) == 7 { // not the head: its last column is two words
				states[cells[0]] = cells[1]
				if paused := cells[6] != "-"; paused != (cells[1] == "parked" || cells[1] == "down") {
					t.Errorf("paused: %s", line)
				}
			}
		}
		return states[limits] == "parked" && states[dead] == "down" && states[world.HostURLs()[2]] == "done"
	})
	if world.Faults("limit") == 0 || world.Faults("dead") == 0 {
		t.Error("no fault was carried out")
	}
	s.end()
}
