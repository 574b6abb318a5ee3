package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appview/cmd/term"
	"appview/internal/api"
	"appview/internal/sandbox"
)

func TestWatchPrintsEveryStateAsALineOfJSON(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	out := want(t, exitOK, "", nil, "backfill", "create", "--collection", sandbox.StatusCollection.String(), "--watch", "--json", "--data-dir", dir)
	var last term.Job
	for line := range strings.Lines(out) {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Errorf("%v in %q", err, line)
		}
	}
	if last.Status != "completed" || last.Reasons["exact"] != *last.TotalRepos {
		t.Errorf("the last line is %+v", last)
	}
	want(t, exitOK, "status     completed", nil, "backfill", "watch", "--data-dir", dir) // the last one
	s.end()
}

func TestWatchOfNothing(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	want(t, exitError, noJobs, nil, "backfill", "watch", "--data-dir", dir)
	s.end()
}

// shown is a display that counts.
type shown struct {
	jobs, ends int
	losses     []bool
}

func (s *shown) Job(term.Job, json.RawMessage) { s.jobs++ }
func (*shown) Hosts([]api.Host)                {}
func (s *shown) Lost(is bool)                  { s.losses = append(s.losses, is) }
func (s *shown) End()                          { s.ends++ }

// awayFor is a server without events that shows a job once, answers nothing of use
// for a while, and shows the job completed.
func awayFor(t *testing.T, requests int64) (c *client, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/admin/backfill/x" {
			http.NotFound(w, r)
			return
		}
		switch n := asked.Add(1); {
		case n == 1:
			_, _ = w.Write([]byte(`{"id":"6c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20","status":"running"}`))
		case n < 2+requests && n%2 == 0:
			http.Error(w, "the proxy does not find it", http.StatusBadGateway)
		case n < 2+requests:
			panic(http.ErrAbortHandler)
		default:
			_, _ = w.Write([]byte(`{"id":"6c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20","status":"completed"}`))
		}
	}))
	t.Cleanup(server.Close)
	return &client{http: server.Client(), base: server.URL, key: testKey}, asked
}

func TestWatchWaitsForAServerThatGoesAway(t *testing.T) {
	t.Parallel()
	c, asked := awayFor(t, 6)
	var s shown
	j, err := c.watch(t.Context(), &s, "x", watching{every: time.Millisecond})
	if err != nil || j.Status != "completed" || s.jobs != 2 || s.ends != 1 || !slices.Equal(s.losses, []bool{true, false}) || asked.Load() != 8 {
		t.Errorf("%v: %+v, %+v, asked %d times", err, j, s, asked.Load())
	}
}

func TestWatchGivesAServerUpThatStaysAway(t *testing.T) {
	t.Parallel()
	c, _ := awayFor(t, 1<<40)
	var s shown
	_, err := c.watch(t.Context(), &s, "x", watching{every: time.Millisecond, lost: 20 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "the job goes on when it runs again") || s.ends != 1 {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestWatchEndsWithItsUser(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	c, err := (&program{}).newClient(clientOptions{dataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	ctx, cancel := context.WithCancel(t.Context())
	d := &cancels{cancel: cancel}
	if _, err = c.watch(ctx, d, newestJob(t, dir).ID, watching{}); err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no longer watched: the job goes on") {
		t.Errorf("got %v", err)
	}
	if d.jobs == 0 || d.ends != 1 {
		t.Errorf("%+v", d.shown)
	}
	s.end()
}

// cancels is Ctrl-C at the first state that is shown.
type cancels struct {
	shown

	cancel func()
}

func (d *cancels) Job(j term.Job, raw json.RawMessage) { d.shown.Job(j, raw); d.cancel() }
