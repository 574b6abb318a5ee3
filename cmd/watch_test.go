package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/internal/sandbox"
)

// running is a job in the middle of its work.
func running() jobView {
	return jobView{api.JobDetail{
		Job: api.Job{
			ID: uuid.MustParse("6c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20"), Collection: new("xyz.statusphere.status"), Status: "running", Stage: "fetching_records",
			TotalRepos: new(int64(1840)), ProcessedRepos: new(int64(920)), TotalRecords: new(int64(4321)),
		},
		DiscoveryComplete: true,
		ReposPerSecond:    12.4, RecordsPerSecond: 123.4, ETASeconds: new(61.0), FailedRepos: 4, UnavailableRepos: 2,
		Reasons: map[string]int64{"exact": 910, "empty": 4, "timeout": 1, "http_5xx": 3, "not_found": 2},
	}}
}

func TestAJobOnOneLine(t *testing.T) {
	t.Parallel()
	j := running()
	want := "fetching_records   920/1,840 repos  4,321 records  12 repos/s  123 records/s  1m1s left  " +
		"4 failed (3 http_5xx, 1 timeout), 2 unavailable (2 not_found)"
	if got := j.line(time.Now()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	j = jobView{api.JobDetail{Job: api.Job{Status: "cancelling", Stage: "pending"}, Waiting: new(api.WaitingQueue)}}
	if got := j.line(time.Now()); got != "cancelling         -/- repos  - records  waits for its turn: other jobs come first" {
		t.Errorf("got %q", got)
	}
	for name, c := range map[string]struct {
		j    api.JobDetail
		want string
	}{
		"the relay": {
			api.JobDetail{Waiting: new(api.WaitingRelay), WaitingHost: new("https://r.example"), WaitingSince: new("2026-01-02T03:04:05Z"), WaitingUntil: new("2026-01-02T03:06:05Z"), WaitingAnswer: new("HTTP 502")},
			"waits for the relay  https://r.example has not answered since 2026-01-02T03:04:05Z, is asked again in 1m6s: HTTP 502",
		},
		"the directory, being asked": {
			api.JobDetail{Waiting: new(api.WaitingDirectory), WaitingHost: new("https://d.example"), WaitingSince: new("2026-01-02T03:04:05Z"), WaitingUntil: new("2026-01-02T03:05:00Z")},
			"waits for the directory  https://d.example has not answered since 2026-01-02T03:04:05Z",
		},
	} {
		c.j.Status, c.j.Stage = "running", "discovering_repos"
		if got := (jobView{c.j}).line(time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)); got != "discovering_repos  -/- repos  - records  "+c.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestProgressIsALineNowAndThenWhereNoTerminalIs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	now := time.Unix(0, 0)
	d := plainDisplay{w: &out, now: func() time.Time { return now }}
	j := running()
	for range 11 { // two seconds and a half later, the third line is due
		d.job(j, nil)
		now = now.Add(plainEvery / 4)
	}
	j.Stage = "completed"
	d.job(j, nil)
	if n := strings.Count(out.String(), "fetching_records"); n != 3 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if !strings.HasSuffix(out.String(), "failed (3 http_5xx, 1 timeout), 2 unavailable (2 not_found)\n") || strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("got %q", out.String())
	}

	out.Reset()
	parked := api.Host{Endpoint: "https://a.example", TotalRepos: 1200, CompletedRepos: 100, State: "parked", PausedUntil: new("2030-01-31T00:00:00Z")}
	good := api.Host{Endpoint: "https://b.example", TotalRepos: 7, State: "active"}
	for range 3 {
		d.hosts([]api.Host{parked, good})
	}
	parked.State, parked.CompletedRepos, parked.PausedUntil = "done", 1190, nil
	parked.FailedRepos = 10
	d.hosts([]api.Host{parked, good})
	var many []api.Host
	for i := range plainHosts + 2 {
		many = append(many, api.Host{Endpoint: fmt.Sprintf("https://%d.example", i), State: "down", TotalRepos: 1})
	}
	d.hosts(many)
	d.lost(true)
	d.lost(false)
	d.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if lines[0] != "host https://a.example is parked until 2030-01-31T00:00:00Z, 1,100 repos left" || lines[1] != "host https://a.example is done: 1,190 repos read, 10 given up" {
		t.Errorf("got:\n%s", out.String())
	}
	if len(lines) != 2+plainHosts+3 || lines[2+plainHosts] != "and 2 more hosts" || !strings.HasSuffix(out.String(), serverLost+"\nthe server answers again\n") {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestLinesBelowTheBar(t *testing.T) {
	t.Parallel()
	d := liveDisplay{now: running()}
	now := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	d.hosts([]api.Host{{State: "parked"}}) // only the last ones count
	var hosts []api.Host
	for i := range livePaused + 2 {
		hosts = append(hosts, api.Host{Endpoint: fmt.Sprintf("https://%d.example", i), State: "down", TotalRepos: 10, FailedRepos: 3, PausedUntil: new("2030-01-31T00:01:30Z")})
	}
	d.hosts(append(hosts, api.Host{State: "active"}, api.Host{State: "done"}))
	d.lost(true)
	got := d.lines(now)
	want := []string{
		"4,321 records  12 repos/s  123 records/s  1m1s left",
		"4 failed (3 http_5xx, 1 timeout), 2 unavailable (2 not_found)",
		"  down    asked again in 1m30s             7 repos left  https://0.example",
	}
	if !slices.Equal(got[:3], want) || len(got) != 2+livePaused+2 || got[2+livePaused] != "  and 2 more hosts that are down or asked for a pause" || got[3+livePaused] != serverLost {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
	if len(got) > liveLines {
		t.Errorf("%d lines, at most %d are drawn", len(got), liveLines)
	}
	if text := askedAgain(d.paused[0], now.Add(time.Hour)); text != "is asked again" {
		t.Errorf("got %q", text)
	}
}

func TestWatchPrintsEveryStateAsALineOfJSON(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	out := want(t, exitOK, "", nil, "backfill", "create", "--collection", sandbox.StatusCollection.String(), "--watch", "--json", "--data-dir", dir)
	var last jobView
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

func (s *shown) job(jobView, json.RawMessage) { s.jobs++ }
func (*shown) hosts([]api.Host)               {}
func (s *shown) lost(is bool)                 { s.losses = append(s.losses, is) }
func (s *shown) end()                         { s.ends++ }

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

func (d *cancels) job(j jobView, raw json.RawMessage) { d.shown.job(j, raw); d.cancel() }
