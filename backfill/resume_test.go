package backfill_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

func TestInterruptedJobGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{
		Seed: 20, Repos: 2500, Hosts: 8, LargeRepos: 1,
		Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 0, MaxRecords: 3}},
	}
	r := newRig(t, world)
	undisturbed := r.complete(jobs.Request{Collection: status})

	r = newRig(t, world)
	job := r.create(jobs.Request{Collection: status})
	for _, share := range []int64{0, 10, 4, 2} { // of the repos settled when the process ends
		job = r.await(job, "far enough", func(j jobs.Job) bool {
			return j.Status.Final() || (share == 0 && j.Listed) || (share > 0 && j.Processed > undisturbed.TotalRepos/share)
		})
		r.stop()
		if got := r.job(job); got.Status != api.StatusRunning && got.Status != api.StatusCompleted {
			t.Errorf("an interrupted job is %s", got.Status)
		}
		r.run(options{})
	}
	job = r.finish(job)
	if job.Status != api.StatusCompleted {
		t.Fatalf("job: %+v", job)
	}
	wantCounters(t, job, undisturbed)
	r.wantTruth(status)
	first := 0
	for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Method == byCollection && q.Status == 200 }) {
		if q.Cursor == "" {
			first++
		}
	}
	if first > 1 {
		t.Errorf("discovery was begun %d times", first)
	}
}

func TestCancelledBeforeACrashIsCancelledAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 21, Repos: 20})
	r.stop()
	job := r.create(jobs.Request{Collection: status}) // nobody works on it
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	if got := r.job(job); got.Status != api.StatusCancelling {
		t.Fatalf("job is %s", got.Status)
	}
	if err := r.b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.job(job); got.Status != api.StatusCancelled {
		t.Errorf("after the start job is %s", got.Status)
	}
}

func TestLargeRepoGoesOnInTheMiddle(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{
		Seed: 22, Repos: 1, Hosts: 1,
		Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 3000, MaxRecords: 3000}},
	}
	r := newRig(t, world)
	job := r.stopInTheMiddle(jobs.Request{Collection: status}, status)
	r.world.ResetRequests()
	r.run(options{})
	job = r.finish(job)
	r.wantTruth(status)
	if job.Tally != (index.Tally{Records: 3000, Created: 3000}) || job.Reasons["exact"] != 1 {
		t.Errorf("job: %+v", job)
	}
	pages := r.world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords })
	if len(pages) > 22 {
		t.Errorf("%d pages read after the restart, of 31", len(pages))
	}
	for _, q := range pages {
		if q.Cursor == "" {
			t.Error("the listing was begun anew")
		}
	}
}

// TestRelayThatLosesItsPlace has a relay that, after a restart of ours, does not take
// its own cursor any more, or takes it and begins anew, with more pages of what it
// has named already than a listing may have without anything new.
func TestRelayThatLosesItsPlace(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for name, refuses := range map[string]bool{"refuses its cursor": true, "begins anew": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const perPage, held = 3, 70
			r := newRig(t, sandbox.Config{Seed: 23, Repos: 300, Hosts: 2, Collections: statuses(1, 1)})
			repos := r.world.Repos()
			var process, first atomic.Int64 // of ours; and requests without a cursor
			process.Store(1)
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Method != byCollection {
					return sandbox.Fault{}
				}
				now, page := process.Load(), int64(0)
				var of int64
				if q.Cursor == "" {
					first.Add(1)
				} else if _, err := fmt.Sscanf(q.Cursor, "%d of %d", &page, &of); err != nil {
					t.Errorf("cursor %q: %v", q.Cursor, err)
				}
				switch {
				case of != 0 && of != now && refuses:
					return sandbox.Fault{
						Name: "lost", Status: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}},
						Body: []byte(`{"error":"InvalidRequest","message":"unknown cursor"}`),
					}
				case of != 0 && of != now:
					page = 0
				case now == 1 && page == held:
					return sandbox.Fault{Hang: true}
				}
				var b strings.Builder
				b.WriteString(`{"repos":[`)
				for i := page * perPage; i < (page+1)*perPage; i++ {
					if i > page*perPage {
						b.WriteByte(',')
					}
					fmt.Fprintf(&b, `{"did":%q}`, repos[i].DID)
				}
				b.WriteString("]")
				if (page+1)*perPage < int64(len(repos)) {
					fmt.Fprintf(&b, `,"cursor":"%d of %d"`, page+1, now)
				}
				b.WriteString("}")
				if of != 0 && of != now {
					return says("lost", b.String())
				}
				return says("page", b.String())
			})
			job := r.create(jobs.Request{Collection: status})
			r.await(job, "in the middle of the listing", func(jobs.Job) bool { return r.world.Faults("hang") > 0 })
			r.stop()
			process.Store(2)
			r.run(options{})
			job = r.finish(job)
			if job.Status != api.StatusCompleted || job.TotalRepos != 300 || job.Reasons["exact"] != 300 {
				t.Errorf("job: %+v", job)
			}
			r.wantTruth(status)
			if want := map[bool]int64{true: 2, false: 1}[refuses]; r.world.Faults("lost") != 1 || first.Load() != want {
				t.Errorf("it lost its place %d times, and was asked for its first page %d times", r.world.Faults("lost"), first.Load())
			}
		})
	}
}

// TestBackoffSurvivesARestart has a repo that fails, and wants the next process to
// know how often, and to wait as long.
func TestBackoffSurvivesARestart(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	o := options{config: backfill.Config{Attempts: 3, Retry: 2 * time.Second}}
	r := newRigWith(t, sandbox.Config{Seed: 24, Repos: 4, Hosts: 1, Collections: statuses(1, 1)}, o)
	sick := r.world.Repos()[0].DID
	var asked []time.Time
	var mu sync.Mutex
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method != repoStatus || q.DID != sick.String() {
			return sandbox.Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, time.Now())
		return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
	})
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "postponed", func(j jobs.Job) bool {
		return j.Processed == 3 && r.repo(j, sick).Attempts == 1
	})
	next := r.repo(job, sick).NextAttempt
	r.stop()
	r.run(o)
	job = r.finish(job)
	repo := r.repo(job, sick)
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 3 || repo.Attempts != 3 || repo.Reason != "http_5xx" {
		t.Fatalf("asked %d times: %+v", len(asked), repo)
	}
	if early := next.Sub(asked[1]); early > 50*time.Millisecond || asked[1].Sub(asked[0]) < 1500*time.Millisecond || asked[2].Sub(asked[1]) < 3*time.Second {
		t.Errorf("asked at %v, and was not to be asked before %s", asked, next)
	}
}

// stopInTheMiddle makes a job, and ends the process when it has read a thousand
// records of a collection that is listed in steps.
func (r *rig) stopInTheMiddle(req jobs.Request, of syntax.NSID) jobs.Job {
	r.t.Helper()
	var pages atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Method == listRecords && q.Collection == of && pages.Add(1) > 12}
	})
	job := r.create(req)
	r.await(job, "in the middle", func(jobs.Job) bool { return len(r.served(of)) >= 1000 })
	r.stop()
	listOnly(r.world, nil)
	return job
}
