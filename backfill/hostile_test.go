package backfill_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

// statuses is the one collection of a small world.
func statuses(least, most int) []sandbox.Collection {
	return []sandbox.Collection{{NSID: status, Share: 1, MinRecords: least, MaxRecords: most}}
}

// butterfly is the value of a status.
func butterfly() map[string]any {
	return map[string]any{"$type": string(status), "status": "🦋", "createdAt": "2026-01-01T00:00:00Z"}
}

// says is an answer in place of the host's own.
func says(name, body string) sandbox.Fault {
	return sandbox.Fault{Name: name, Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)}
}

// firstDID is the repo that stands first in every queue.
func firstDID(w *sandbox.World) string {
	first := ""
	for _, repo := range w.Repos() {
		if first == "" || repo.DID.String() < first {
			first = repo.DID.String()
		}
	}
	return first
}

func TestPageOfAnotherRepoDeletesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 40, Repos: 2, Hosts: 1, Collections: statuses(5, 5)})
	r.complete(jobs.Request{Collection: status})
	one, two := r.world.Repos()[0].DID, r.world.Repos()[1].DID
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method != listRecords || q.DID != string(one) {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "mixed up", Rewrite: func(a sandbox.Answer) sandbox.Answer {
			a.Body = bytes.ReplaceAll(a.Body, []byte(one), []byte(two))
			return a
		}}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if r.world.Faults("mixed up") == 0 || job.Reasons["rejected"] != 1 || job.Tally.Rejected != 5 {
		t.Errorf("job: %+v", job)
	}
}

func TestPagesWithoutKeysDeleteNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 41, Repos: 1, Hosts: 1, Collections: statuses(50, 50)})
	listOnly(r.world, nil)
	r.complete(jobs.Request{Collection: status})
	var n atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && (q.Cursor == "" || strings.HasPrefix(q.Cursor, "zz")) {
			if i := n.Add(1); i <= 7 {
				return says("no key", fmt.Sprintf(`{"records":[{}],"cursor":"zzzzzzzzzzzz%d"}`, i))
			}
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if r.world.Faults("no key") != 7 || job.Tally.Deleted != 0 || job.Tally.Rejected != 7 || job.Failed != 1 {
		t.Errorf("job: %+v", job)
	}
}

func TestEmptyPageBeforeTheEndDeletesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		empty  int64 // pages
		listed bool  // the host offers no getRepo, which would tell
		want   string
	}{"once": {1, true, "exact"}, "for ever": {1 << 30, true, "incomplete"}, "for ever with getRepo": {1 << 30, false, "exact"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 42, Repos: 1, Hosts: 1, Collections: statuses(50, 50)})
			r.complete(jobs.Request{Collection: status})
			var n atomic.Int64
			hook := func(q sandbox.Request) sandbox.Fault {
				if i := n.Add(1); q.Method == listRecords && i <= c.empty {
					return says("empty", fmt.Sprintf(`{"records":[],"cursor":"zzzzzzzzzzzz%d"}`, i))
				}
				n.Add(-1)
				return sandbox.Fault{}
			}
			r.world.SetFault(hook)
			if c.listed {
				listOnly(r.world, hook)
			}
			job := r.complete(jobs.Request{Collection: status})
			r.wantTruth(status)
			if r.world.Faults("empty") == 0 || job.Reasons[c.want] != 1 {
				t.Errorf("reasons %v, want %s", job.Reasons, c.want)
			}
		})
	}
}

func TestRelayThatGoesInCirclesFailsTheJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 43, Repos: 20, Hosts: 1})
	for _, c := range []syntax.NSID{status, notes} {
		if err := r.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	did := r.world.Repos()[0].DID
	var n atomic.Int64
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method != byCollection {
			return sandbox.Fault{}
		}
		return says("circle", fmt.Sprintf(`{"repos":[{"did":%q}],"cursor":"%d"}`, did, n.Add(1)%3))
	})
	job := r.finish(r.create(jobs.Request{}))
	if job.Status != api.StatusFailed || !strings.Contains(job.Error, "twice") || n.Load() > 20 {
		t.Errorf("after %d pages: %+v", n.Load(), job)
	}
}

func TestOneParkedLookUpHoldsUpNobody(t *testing.T) {
	t.Parallel()
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	t.Cleanup(limited.Close)
	r := newRig(t, sandbox.Config{Seed: 44, Repos: 60, Hosts: 2, Collections: statuses(1, 1)})
	first := firstDID(r.world)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == sandbox.MethodDID && q.DID == first {
			return sandbox.Fault{Name: "sent on", Status: http.StatusFound, Header: http.Header{"Location": {limited.URL + "/x"}}}
		}
		return sandbox.Fault{}
	})
	job := r.await(r.create(jobs.Request{Collection: status}), "done but for one", func(j jobs.Job) bool {
		return j.Discovered && j.Processed == j.TotalRepos-1
	})
	if r.world.Faults("sent on") == 0 {
		t.Error("no look-up was sent on")
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	r.finish(job)
}

func TestHostThatSendsOnToADeadOneIsGivenUpSoon(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>this domain is for sale</html>"))
	}))
	t.Cleanup(dead.Close)
	r := newRig(t, sandbox.Config{Seed: 45, Repos: 80, Hosts: 4, Collections: statuses(1, 2)}) // with probes as slow as real ones
	host := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Host != host {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "sent on", Status: http.StatusFound, Header: http.Header{"Location": {dead.URL + "/"}}}
	})
	began := time.Now()
	job := r.complete(jobs.Request{Collection: status})
	if job.Failed != 20 || job.Reasons["exact"] != 60 || r.world.Faults("sent on") == 0 {
		t.Errorf("job: %+v", job)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestNamedJobDoesNotWaitBehindBusyHosts(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 46, Repos: 20, Hosts: 2, Collections: statuses(1, 2)}, options{config: backfill.Config{MaxHosts: 1}})
	named := r.world.Repos()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Method == repoStatus && q.Host != named.Host}
	})
	busy := r.create(jobs.Request{Collection: status})
	r.await(busy, "hanging", func(jobs.Job) bool { return r.world.Faults("hang") > 0 })
	r.complete(jobs.Request{DID: named.DID})
}

func TestLargeRepoThatGetsOnIsNotGivenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 47, Repos: 1, Hosts: 1, Collections: statuses(6000, 6000)})
	var n atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && n.Add(1)%8 == 0 {
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if got := r.world.Faults("sick"); job.Reasons["exact"] != 1 || got < 6 {
		t.Errorf("after %d failures: %+v", got, job)
	}
}

func TestStatusThatMayPassIsAskedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 48, Repos: 5, Hosts: 1, Collections: statuses(1, 2)})
	did := r.world.Repos()[0].DID.String()
	var n atomic.Int64
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == repoStatus && q.DID == did && n.Add(1) == 1 {
			return says("out of step", fmt.Sprintf(`{"did":%q,"active":false,"status":"desynchronized"}`, did))
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.Failed > 0 || r.world.Faults("out of step") != 1 {
		t.Errorf("job: %+v", job)
	}
}

func TestPostponedRepoDoesNotHoldUpItsHost(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 49, Repos: 200, Hosts: 1, Collections: statuses(1, 1)}, options{config: backfill.Config{Retry: time.Minute}})
	first := firstDID(r.world)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Method == sandbox.MethodDID && q.DID != first:
			return sandbox.Fault{Delay: 50 * time.Millisecond} // the look-ups come in later than the failure
		case q.Method == repoStatus && q.DID == first:
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return sandbox.Fault{}
	})
	job := r.await(r.create(jobs.Request{Collection: status}), "done but for one", func(j jobs.Job) bool {
		return j.Discovered && j.Processed == j.TotalRepos-1
	})
	if r.world.Faults("sick") != 1 {
		t.Errorf("the sick repo was asked for %d times", r.world.Faults("sick"))
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	r.finish(job)
}

// full is a disk that fills up when the first records are listed.
func full(r *rig, free *atomic.Uint64) {
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords {
			free.Store(1)
		}
		return sandbox.Fault{}
	})
}

func TestFullDiskHoldsUpNeitherCancelNorShutdown(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	var emptied atomic.Bool // whatever requests that come late do
	free.Store(1 << 40)
	o := options{store: store.Config{FreeSpace: func(string) (uint64, error) {
		if emptied.Load() {
			return 1 << 40, nil
		}
		return free.Load(), nil
	}}}
	r := newRigWith(t, sandbox.Config{Seed: 50, Repos: 40, Collections: statuses(1, 3)}, o)
	full(r, &free)
	job := r.create(jobs.Request{Collection: status})
	job = r.await(job, "waiting for disk", func(j jobs.Job) bool {
		waiting, _, _ := r.b.Progress(j)
		return waiting == "disk"
	})
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	if job = r.finish(job); job.Status != api.StatusCancelled || time.Since(asked) > 3*time.Second {
		t.Errorf("job is %s %s after it was cancelled", job.Status, time.Since(asked))
	}

	emptied.Store(true)
	r.await(job, "able to write", func(jobs.Job) bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		second, err := r.b.Create(ctx, jobs.Request{Collection: status})
		job = second
		return err == nil
	})
	emptied.Store(false)
	r.await(job, "waiting for disk", func(j jobs.Job) bool {
		waiting, _, _ := r.b.Progress(j)
		return waiting == "disk"
	})
	asked = time.Now()
	r.stop()
	if took := time.Since(asked); took > 3*time.Second {
		t.Errorf("Run returned %s after its end", took)
	}
	r.world.SetFault(nil)
	free.Store(1 << 40)
	r.run(o)
	if job = r.finish(job); job.Status != api.StatusCompleted {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth(status)
}

func TestRepoOfManyCollectionsIsReadInSteps(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{Seed: 51, Repos: 1, Hosts: 1}
	for i := range 30 {
		world.Collections = append(world.Collections, sandbox.Collection{
			NSID: syntax.NSID(fmt.Sprintf("com.example.c%d", i)), Share: 1, MinRecords: 3, MaxRecords: 3,
		})
	}
	r := newRig(t, world)
	did := r.world.Repos()[0].DID
	last := syntax.NSID("com.example.c9") // in the order in which they are read
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Method == listRecords && q.Collection == last}
	})
	job := r.create(jobs.Request{DID: did})
	r.await(job, "nearly read", func(jobs.Job) bool { return r.world.Faults("hang") > 0 })
	if n := len(r.served("")); n < 60 {
		t.Errorf("%d records of 87 read are committed", n)
	}
	r.stop()
	listOnly(r.world, nil)
	r.run(options{})
	if job = r.finish(job); job.Tally != (index.Tally{Records: 90, Created: 90}) || job.Reasons["exact"] != 1 {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth("")
}
