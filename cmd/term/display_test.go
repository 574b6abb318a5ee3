package term

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
)

// running is a job in the middle of its work.
func running() Job {
	return Job{api.JobDetail{
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
	j = Job{api.JobDetail{Job: api.Job{Status: "cancelling", Stage: "pending"}, Waiting: new(api.WaitingQueue)}}
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
		if got := (Job{c.j}).line(time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)); got != "discovering_repos  -/- repos  - records  "+c.want {
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
		d.Job(j, nil)
		now = now.Add(plainEvery / 4)
	}
	j.Stage = "completed"
	d.Job(j, nil)
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
		d.Hosts([]api.Host{parked, good})
	}
	parked.State, parked.CompletedRepos, parked.PausedUntil = "done", 1190, nil
	parked.FailedRepos = 10
	d.Hosts([]api.Host{parked, good})
	var many []api.Host
	for i := range plainHosts + 2 {
		many = append(many, api.Host{Endpoint: fmt.Sprintf("https://%d.example", i), State: "down", TotalRepos: 1})
	}
	d.Hosts(many)
	d.Lost(true)
	d.Lost(false)
	d.End()
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
	d.Hosts([]api.Host{{State: "parked"}}) // only the last ones count
	var hosts []api.Host
	for i := range livePaused + 2 {
		hosts = append(hosts, api.Host{Endpoint: fmt.Sprintf("https://%d.example", i), State: "down", TotalRepos: 10, FailedRepos: 3, PausedUntil: new("2030-01-31T00:01:30Z")})
	}
	d.Hosts(append(hosts, api.Host{State: "active"}, api.Host{State: "done"}))
	d.Lost(true)
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
