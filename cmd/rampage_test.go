package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store/storetest"
)

// endurance is how long a job may take on a machine that has much else to do.
const endurance = 3 * time.Minute

// rampage kills the program again and again in one job.
type rampage struct {
	t     *testing.T
	rng   *rand.Rand
	world *sandbox.World
	dir   string
	args  []string

	mu       sync.Mutex // guards what hosts do, and how the world changes
	weather  *rand.Rand
	failed   map[string]int // faults by what was asked about
	changing bool
	changes  int
}

// TestKilledAtRandomLosesNothing runs one job over a network with faults, and kills
// the program with SIGKILL at random moments of it: while it starts, while it works,
// and while it answers. In between, what a reader sees of the job may only move
// forward. At the end every answer of the API must be what the world holds.
//
// With every other seed the network rests, and the job that was killed must have
// counted what one that nothing disturbed does. With the others repos change while
// they are read, and a last job over the resting network must make the index exact.
func TestKilledAtRandomLosesNothing(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	kills := 5
	if storetest.Soaking(t) > 0 {
		kills = 15
	}
	for _, seed := range storetest.Seeds(t, 2) {
		t.Run(seed.String(), func(t *testing.T) {
			t.Parallel()
			newRampage(t, seed).run(kills)
		})
	}
}

func newRampage(t *testing.T, seed storetest.Seed) *rampage {
	t.Helper()
	r := &rampage{
		t: t, rng: seed.Rand(), weather: seed.Rand(), dir: t.TempDir(), failed: map[string]int{}, changing: seed%2 == 0,
		world: sandboxtest.Start(t, sandbox.Config{Seed: int64(seed), Repos: 200, Hosts: 5, LargeRepos: 1, Odd: 0.05}),
	}
	r.args = []string{
		"serve", "--data-dir", r.dir, "--listen", "127.0.0.1:0", "--relay", r.world.RelayURL(), "--plc", r.world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "40", "--plc-rps", "10000",
	}
	return r
}

func (r *rampage) run(kills int) {
	r.t.Helper()
	r.world.SetFault(r.storm)
	marks := make([]float64, kills) // shares of the repos that are settled when it is killed
	for n := range marks {
		marks[n] = r.rng.Float64() * 0.95
	}
	slices.Sort(marks)
	working, job := 0, ""
	var last jobCount
	for n, mark := range marks {
		c := startChild(r.t, nil, r.args...)
		if n == 0 {
			c.log.wait(r.t, "msg=serving")
			job = r.create()
		}
		if n%3 == 2 {
			r.wait(time.Duration(r.rng.IntN(150)) * time.Millisecond) // at times before it serves
		} else {
			c.log.wait(r.t, "msg=serving")
			r.until(c, func() bool {
				last = r.forward(last, job)
				return last.ProcessedRepos >= mark*float64(len(r.world.Repos()))
			})
			r.wait(time.Duration(r.rng.IntN(100)) * time.Millisecond)
		}
		if !strings.Contains(c.log.String(), "job ended") {
			working++
		}
		if err := c.cmd.Process.Kill(); err != nil {
			r.t.Fatal(err)
		}
		c.wait()
		r.t.Logf("killed at %s, with %.0f of %.0f repos settled", last.Stage, last.ProcessedRepos, last.TotalRepos)
	}
	if working < kills/2 {
		r.t.Errorf("only %d of %d kills were while the job ran", working, kills)
	}
	r.calm()
	r.t.Logf("%d kills, %d of them while the job ran; %d faults, %d changes", kills, working, r.world.Faults(""), r.changes)
	s := serveIn(r.t, r.world, r.dir)
	counters := r.settled(job)
	r.forward(last, job)
	// It makes good what changed while it was read, and proves what a host that did
	// not give the whole repo could only claim.
	r.settled(r.create())
	wantTruth(r.t, r.world, r.dir)
	wantReport(r.t, r.dir)
	again := r.settled(r.create())
	if code := s.end(); code != exitOK {
		r.t.Errorf("ended with %d", code)
	}
	want(r.t, exitOK, "is consistent", nil, "check", "--data-dir", r.dir)

	r.dir = filepath.Join(r.t.TempDir(), "undisturbed")
	serveIn(r.t, r.world, r.dir)
	undisturbed := r.settled(r.create())
	if !r.changing && !maps.Equal(counters, undisturbed) {
		r.t.Errorf("counters after the kills: %v\nof an undisturbed job:   %v", counters, undisturbed)
	}
	// The last job found nothing to do. All else it counts as the undisturbed one.
	for name, n := range map[string]string{"created_records": "0", "updated_records": "0", "deleted_records": "0", "unchanged_records": undisturbed["total_records"]} {
		if again[name] != n {
			r.t.Errorf("the last job counts %s %s, want %s", again[name], name, n)
		}
		again[name] = undisturbed[name]
	}
	if !maps.Equal(again, undisturbed) {
		r.t.Errorf("counters of the last job: %v\nof an undisturbed job:  %v", again, undisturbed)
	}
}

// storm is what happens to requests: hosts fail now and then, never often enough for
// a repo to be given up, and repos change.
func (r *rampage) storm(q sandbox.Request) sandbox.Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changing && q.Part == sandbox.PartPDS && r.weather.IntN(3) == 0 {
		if _, err := r.world.Mutate(r.weather); err != nil {
			r.t.Errorf("change the world: %v", err)
		}
		r.changes++
	}
	about := string(q.Part) + q.DID
	dice := r.weather.IntN(100)
	if dice >= 12 || (dice < 6 && r.failed[about] == 2) {
		return sandbox.Fault{}
	}
	if dice < 6 {
		r.failed[about]++
	}
	switch {
	case dice < 3:
		return sandbox.Fault{Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
	case dice < 6:
		return sandbox.Fault{Cut: true, CutAfter: r.weather.IntN(200)}
	default:
		return sandbox.Fault{Delay: time.Duration(r.weather.IntN(25)) * time.Millisecond}
	}
}

// calm ends the storm.
func (r *rampage) calm() {
	r.world.SetFault(nil)
	r.mu.Lock() // whoever is in it has come out
	defer r.mu.Unlock()
}

func (r *rampage) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// until waits while the job runs.
func (r *rampage) until(c *child, is func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), endurance)
	defer cancel()
	for tick := time.Tick(5 * time.Millisecond); !is() && !strings.Contains(c.log.String(), "job ended"); {
		select {
		case <-tick:
		case <-ctx.Done():
			r.t.Fatalf("the job stands still:\n%s", c.log)
		}
	}
}

// create makes a job over everything, and returns its id.
func (r *rampage) create() string {
	r.t.Helper()
	var job struct{ ID string }
	if err := json.Unmarshal(tell(r.t, r.dir, "/admin/backfill"), &job); err != nil {
		r.t.Fatal(err)
	}
	return job.ID
}

// tell has the server on a data directory do something.
func tell(t *testing.T, dir, path string) []byte {
	t.Helper()
	return called(t, dir, http.MethodPost, path)
}

// settled waits for the end of a job and returns what it counted.
func (r *rampage) settled(id string) map[string]string {
	r.t.Helper()
	var job map[string]any
	late := time.After(endurance)
	for tick := time.Tick(10 * time.Millisecond); job["completed_at"] == nil; {
		select {
		case <-tick:
		case <-late:
			r.t.Fatalf("the job does not end: %v", job)
		}
		if err := json.Unmarshal(ask(r.t, r.dir, "/admin/backfill/"+id), &job); err != nil {
			r.t.Fatal(err)
		}
	}
	if job["status"] != "completed" || job["error"] != nil {
		r.t.Errorf("the job ended: %v", job)
	}
	counters := map[string]string{}
	for name, v := range job {
		if strings.HasSuffix(name, "_repos") || strings.HasSuffix(name, "_records") {
			counters[name] = fmt.Sprint(v)
		}
	}
	return counters
}

// jobCount is what may only move forward of a job.
type jobCount struct {
	Stage          string  `json:"stage"`
	Status         string  `json:"status"`
	TotalRepos     float64 `json:"total_repos"`
	ProcessedRepos float64 `json:"processed_repos"`
	TotalRecords   float64 `json:"total_records"`
}

// stageOrder is that of the API.
var stageOrder = []string{"pending", "discovering_repos", "resolving_pds", "fetching_records", "completed"}

// forward looks at a job, and fails if it has gone back since.
func (r *rampage) forward(was jobCount, id string) (now jobCount) {
	r.t.Helper()
	if err := json.Unmarshal(ask(r.t, r.dir, "/admin/backfill/"+id), &now); err != nil {
		r.t.Fatal(err)
	}
	if slices.Index(stageOrder, now.Stage) < slices.Index(stageOrder, was.Stage) || now.TotalRepos < was.TotalRepos ||
		now.ProcessedRepos < was.ProcessedRepos || now.TotalRecords < was.TotalRecords {
		r.t.Errorf("the job went back from %+v to %+v", was, now)
	}
	return now
}

// wantReport fails unless the report of the newest job has every repo once, and its
// lines add up.
func wantReport(t *testing.T, dir string) {
	t.Helper()
	id := newestJob(t, dir).ID
	var job map[string]any
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+id), &job); err != nil {
		t.Fatal(err)
	}
	seen, records, class := map[string]bool{}, 0.0, map[string]int{}
	for line := range strings.Lines(string(ask(t, dir, "/admin/backfill/"+id+"/report"))) {
		var l struct {
			DID, Class string
			Records    float64
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if seen[l.DID] {
			t.Errorf("the report has %s twice", l.DID)
		}
		seen[l.DID] = true
		records += l.Records
		class[l.Class]++
	}
	if float64(len(seen)) != job["total_repos"] || records != job["total_records"] || class["exact"]+class["empty"]+class["unavailable"] != len(seen) {
		t.Errorf("the report has %d repos %v with %v records, the job counts %v", len(seen), class, records, job)
	}
}
