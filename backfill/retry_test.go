package backfill_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// retry carries a job on, and wants the new one completed.
func (r *rig) retry(old jobs.Job) jobs.Job {
	r.t.Helper()
	job, err := r.b.Retry(r.t.Context(), old.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	if job = r.finish(job); job.Status != api.StatusCompleted {
		r.t.Fatalf("job is %s: %s", job.Status, job.Error)
	}
	return job
}

func TestRetryCompletesThePictureAndTouchesNothingElse(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 70, Repos: 60, Hosts: 3, Collections: statuses(1, 3)}, options{config: backfill.Config{Attempts: 2}})
	sick := r.world.HostURLs()[1]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Host == sick && (q.Method == listRecords || q.Method == getRepo) {
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return sandbox.Fault{}
	})
	first := r.complete(jobs.Request{Collection: status})
	if first.Failed != 20 || r.world.Faults("sick") == 0 {
		t.Fatalf("job: %+v", first)
	}
	before, states := r.rows(), r.states(first)
	if states["failed http_5xx"] != 20 || states["done exact"] != 40 {
		t.Errorf("repos: %v", states)
	}
	r.world.SetFault(nil)
	r.world.ResetRequests()
	pages := r.world.Count(sandbox.PartPDS, listRecords)
	second := r.retry(first)
	r.wantTruth(status)
	if second.TotalRepos != 20 || second.Failed != 0 || second.RetryOf != first.Seq {
		t.Errorf("retry: %+v", second)
	}
	if got := r.world.Count(sandbox.PartPDS, listRecords) - pages; got > 40 {
		t.Errorf("%d pages were read for 20 repos", got)
	}
	for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS && q.Host != sick }) {
		t.Errorf("what was right is asked for again: %+v", q)
	}
	after := map[string]bool{}
	for _, row := range r.rows() {
		after[row] = true
	}
	for _, row := range before {
		if !after[row] {
			t.Errorf("changed: %s", row)
		}
	}
	if _, err := r.b.Retry(t.Context(), second.ID); !errors.Is(err, jobs.ErrNothingLeft) {
		t.Errorf("retry of a job that left nothing: %v", err)
	}
	if _, err := r.b.Retry(t.Context(), uuid.New()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("retry of no job: %v", err)
	}
	r.wantHosts(first)
}

// states counts the repos of a job by state and reason.
func (r *rig) states(job jobs.Job) map[string]int {
	r.t.Helper()
	states := map[string]int{}
	for after := syntax.DID(""); ; {
		list, next, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, after, 7, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, repo := range list {
			if repo.State != jobs.RepoSettled {
				states[string(repo.State)]++
				continue
			}
			states[repo.Class+" "+repo.Reason]++
		}
		if next == "" {
			return states
		}
		after = next
	}
}

// wantHosts compares a job's hosts with where the world's repos live.
func (r *rig) wantHosts(job jobs.Job) {
	r.t.Helper()
	want, got := map[string]int64{}, map[string]int64{}
	for _, repo := range r.world.Repos() {
		want[repo.Host]++
	}
	hosts, err := r.store.Jobs.JobHosts(r.t.Context(), job.Seq)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range hosts {
		got[h.Host] = h.Total
		if h.Completed+h.Failed != h.Total {
			r.t.Errorf("host %+v does not add up", h)
		}
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("hosts %v, want %v", got, want)
	}
}

func TestRetryGoesOnWithAListingThatFailed(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 71, Repos: 1500, Hosts: 2, Collections: statuses(1, 1)})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartRelay && q.Cursor != "" {
			return sandbox.Fault{Status: http.StatusNotImplemented}
		}
		return sandbox.Fault{}
	})
	job := r.finish(r.create(jobs.Request{Collection: status}))
	if job.Status != api.StatusFailed || job.TotalRepos != 1000 {
		t.Fatalf("job: %+v", job)
	}
	r.world.SetFault(nil)
	second := r.retry(job)
	r.wantTruth(status)
	if second.Tally.Created != 500 || second.TotalRepos != 500 || second.Processed != 500 {
		t.Errorf("retry: %+v", second)
	}
}

// pagedRelay has the relay list its repos on pages of so many, and answer what refuse
// says when it is asked for a page, if that says anything.
func pagedRelay(t *testing.T, world *sandbox.World, perPage int, refuse func(page int) sandbox.Fault) {
	t.Helper()
	repos := world.Repos()
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartRelay {
			return sandbox.Fault{}
		}
		page := 0
		if q.Cursor != "" {
			var err error
			if page, err = strconv.Atoi(q.Cursor); err != nil {
				t.Errorf("cursor %q", q.Cursor)
			}
		}
		if f := refuse(page); f.Name != "" {
			return f
		}
		var b strings.Builder
		b.WriteString(`{"repos":[`)
		for i, repo := range repos[page*perPage : min((page+1)*perPage, len(repos))] {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"did":%q,"head":"","rev":"","active":true}`, repo.DID)
		}
		b.WriteString("]")
		if (page+1)*perPage < len(repos) {
			fmt.Fprintf(&b, `,"cursor":"%d"`, page+1)
		}
		b.WriteString("}")
		return says("page", b.String())
	})
}

// TestRetryAsksOnlyForWhatWasNotRead breaks a relay's listing off, once or more, and has
// the hosts count who is read, by whom.
func TestRetryAsksOnlyForWhatWasNotRead(t *testing.T) {
	t.Parallel()
	const perPage, pages = 12, 5
	cursor := sandbox.Fault{
		Name: "lost", Status: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}},
		Body: []byte(`{"error":"InvalidRequest","message":"unknown cursor"}`),
	}
	broken := sandbox.Fault{Name: "broken", Status: http.StatusNotImplemented}
	for name, c := range map[string]struct {
		request jobs.Request
		breaks  []int // the page at which the listing breaks off, of the first job, the second…
		lost    bool  // the relay takes no cursor from the last but one: its listing begins anew
	}{
		"once":                   {jobs.Request{Collection: status}, []int{3}, false},
		"twice":                  {jobs.Request{Collection: status}, []int{1, 4}, false},
		"three times":            {jobs.Request{Collection: status}, []int{1, 2, 4}, false},
		"at once, then later":    {jobs.Request{Collection: status}, []int{2, 2, 3}, false},
		"and lists anew":         {jobs.Request{Collection: status}, []int{2}, true},
		"of all collections":     {jobs.Request{}, []int{2, 3}, false},
		"of all, and lists anew": {jobs.Request{}, []int{1, 4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 75, Repos: perPage*pages - 3, Hosts: 3, Collections: statuses(1, 2)})
			var at, lost atomic.Int64
			pagedRelay(t, r.world, perPage, func(page int) sandbox.Fault {
				if page > 0 && lost.CompareAndSwap(1, 0) {
					return cursor
				}
				if int64(page) == at.Load() {
					return broken
				}
				return sandbox.Fault{}
			})
			at.Store(int64(c.breaks[0]))
			job := r.finish(r.create(c.request))
			total := job.TotalRepos
			for run := range c.breaks {
				if job.Status != api.StatusFailed || total != int64(perPage*c.breaks[run]) {
					t.Fatalf("job %d found %d repos: %+v", run, total, job)
				}
				r.world.ResetRequests()
				at.Store(-1)
				if run+1 < len(c.breaks) {
					at.Store(int64(c.breaks[run+1]))
				} else if c.lost {
					lost.Store(1)
				}
				next, err := r.b.Retry(t.Context(), job.ID)
				if err != nil {
					t.Fatal(err)
				}
				job = r.finish(next)
				total += job.TotalRepos
				seen := map[string]bool{}
				for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS }) {
					seen[q.DID] = true
				}
				if int64(len(seen)) != job.TotalRepos {
					t.Errorf("retry %d found %d repos, and asked for %d", run+1, job.TotalRepos, len(seen))
				}
			}
			r.wantTruth(status)
			if job.Status != api.StatusCompleted || total != perPage*pages-3 || lost.Load() != 0 {
				t.Errorf("in all, %d repos were found: %+v", total, job)
			}
		})
	}
}

// TestRetryReadsWhatIsHeldAndWasNotRead has the index hold repos that the relay does not
// list any more, and of which the job that is carried on has come to none.
func TestRetryReadsWhatIsHeldAndWasNotRead(t *testing.T) {
	t.Parallel()
	const perPage = 10
	r := newRig(t, sandbox.Config{Seed: 76, Repos: 3 * perPage, Hosts: 2, Collections: statuses(1, 2)})
	r.complete(jobs.Request{Collection: status})
	repos := r.world.Repos()
	unlisted := repos[2*perPage:]
	emptied := unlisted[3].DID
	for _, rec := range r.world.TruthOf(emptied, status) {
		if err := r.world.Delete(emptied, status, rec.RKey); err != nil {
			t.Fatal(err)
		}
	}
	var broken atomic.Bool
	broken.Store(true)
	pagedRelay(t, r.world, perPage, func(page int) sandbox.Fault {
		switch {
		case page == 1 && broken.Load():
			return sandbox.Fault{Name: "broken", Status: http.StatusNotImplemented}
		case page == 2: // it has forgotten these
			return says("page", `{"repos":[]}`)
		}
		return sandbox.Fault{}
	})
	first := r.finish(r.create(jobs.Request{Collection: status}))
	if first.Status != api.StatusFailed || first.TotalRepos != perPage {
		t.Fatalf("job: %+v", first)
	}
	broken.Store(false)
	if second := r.retry(first); second.TotalRepos != 2*perPage || second.Tally.Deleted == 0 {
		t.Errorf("retry: %+v", second)
	}
	r.wantTruth(status)
}

func TestCancelledJobIsCarriedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 72, Repos: 40, Hosts: 2, Collections: statuses(1, 2)})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Method == listRecords && q.Host == r.world.HostURLs()[0]}
	})
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "half done", func(j jobs.Job) bool { return j.Processed >= 20 })
	if _, err := r.b.Retry(t.Context(), job.ID); !errors.Is(err, jobs.ErrMove) {
		t.Errorf("retry of a running job: %v", err)
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	job = r.finish(job)
	r.world.SetFault(nil)
	if second := r.retry(job); second.TotalRepos != job.TotalRepos-job.Processed {
		t.Errorf("cancelled with %d of %d repos, carried on with %d", job.Processed, job.TotalRepos, second.TotalRepos)
	}
	r.wantTruth(status)
}

func TestJobThatNamesManyRepos(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 73, Repos: 30})
	repos := r.world.Repos()
	if err := r.world.Deactivate(repos[4].DID); err != nil {
		t.Fatal(err)
	}
	var dids []syntax.DID
	for _, repo := range repos[:5] {
		dids = append(dids, repo.DID)
	}
	began := time.Now()
	job := r.complete(jobs.Request{DIDs: dids})
	if job.TotalRepos != 5 || job.Unavailable != 1 || job.Error != "1 of 5 repos are unavailable: 1 deactivated" {
		t.Errorf("after %s: %+v", time.Since(began), job)
	}
	want := 0
	for _, did := range dids[:4] {
		want += len(r.world.TruthOf(did))
	}
	if got := len(r.served("")); got != want {
		t.Errorf("%d records, want %d", got, want)
	}
}

func TestJobThatNamesAsManyReposAsAllowed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 74, Repos: 520, Hosts: 5, Collections: statuses(1, 2)})
	var dids []syntax.DID
	want := 0
	for _, repo := range r.world.Repos()[:500] {
		dids = append(dids, repo.DID)
		want += len(r.world.TruthOf(repo.DID))
	}
	job := r.complete(jobs.Request{DIDs: dids, Collection: status})
	if job.TotalRepos != 500 || job.Reasons["exact"] != 500 || len(r.served("")) != want {
		t.Errorf("%d records, want %d: %+v", len(r.served("")), want, job)
	}
	if n := r.world.Count(sandbox.PartRelay, ""); n != 0 {
		t.Errorf("%d requests to the relay", n)
	}
}
