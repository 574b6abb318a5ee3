package backfill_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const getRecord = "com.atproto.repo.getRecord"

// ordersOf are the hosts that list in another order than the reference PDS, and to the end.
func ordersOf(most int) []zoo.Behaviour {
	return []zoo.Behaviour{zoo.UpwardPages(most), zoo.InclusiveCursor(most), zoo.CreationOrder(most), zoo.ShiftingOrder(most)}
}

// longRepo is a world of one repo with so many records of one collection, at a host that
// gives no repo in one piece.
func longRepo(t *testing.T, records int) (*rig, syntax.DID) {
	t.Helper()
	r := newRig(t, sandbox.Config{Seed: 140, Repos: 1, Hosts: 1, Collections: statuses(records, records)})
	listOnly(r.world, nil)
	return r, r.world.Repos()[0].DID
}

// remove deletes the records of a repo that is deletes, and changes the one before each.
func (r *rig) remove(did syntax.DID, deletes func(i int) bool) (n int64) {
	r.t.Helper()
	truth := r.world.TruthOf(did)
	var writes []sandbox.Write
	for i, uri := range slices.Sorted(maps.Keys(truth)) {
		rec := truth[uri]
		switch {
		case deletes(i):
			writes = append(writes, sandbox.Write{Op: sandbox.OpDelete, Collection: status, RKey: rec.RKey})
			n++
		case deletes(i + 1):
			writes = append(writes, sandbox.Write{Op: sandbox.OpUpdate, Collection: status, RKey: rec.RKey, Value: butterfly()})
		}
	}
	if _, err := r.world.Apply(did, writes); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// TestListingInAnyOrderIsReadToItsEnd reads a repo that only can be listed, in steps and
// at once, twice: at the second time some records are deleted, changed and new. What is
// not listed is asked for only where the order shows nothing.
func TestListingInAnyOrderIsReadToItsEnd(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, size := range []int{90, 310, 1300} {
		for _, b := range ordersOf(100) {
			t.Run(b.Name, func(t *testing.T) {
				t.Parallel()
				r, did := longRepo(t, size)
				r.world.Assign(did, b)
				first := r.complete(jobs.Request{Collection: status})
				r.wantTruth(status)
				if want := (index.Tally{Records: int64(size), Created: int64(size)}); first.Tally != want || first.Reasons["exact"] != 1 {
					t.Errorf("job: %+v, want %+v", first, want)
				}
				deleted := r.remove(did, func(i int) bool { return i%40 == 7 })
				r.grow(did, status, 5)
				second := r.complete(jobs.Request{Collection: status})
				r.wantTruth(status)
				left := int64(size) - deleted
				want := index.Tally{Records: left + 5, Created: 5, Updated: deleted, Deleted: deleted}
				if second.Tally != want || second.Reasons["exact"] != 1 {
					t.Errorf("job: %+v, want %+v", second, want)
				}
				asked, ordered := r.world.Count(sandbox.PartPDS, getRecord), b.Name == "upward pages" || b.Name == "inclusive cursor" || b.Name == "shifting order"
				if ordered && asked > 0 || !ordered && size > 100 && asked != deleted {
					t.Errorf("%d records asked for, %d are deleted", asked, deleted)
				}
				if r.world.Faults(b.Name) == 0 {
					t.Error("it is listed as ever")
				}
			})
		}
	}
}

// TestListingInAnyOrderGoesOnInTheMiddle ends the process in the middle of a listing.
func TestListingInAnyOrderGoesOnInTheMiddle(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, b := range ordersOf(100) {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			r, did := longRepo(t, 3000)
			r.complete(jobs.Request{Collection: status})
			deleted := r.remove(did, func(i int) bool { return i%100 == 50 })
			r.world.Assign(did, b)
			var pages atomic.Int64
			stuck := func(q sandbox.Request) sandbox.Fault {
				return sandbox.Fault{Hang: q.Method == listRecords && pages.Add(1) > 18}
			}
			listOnly(r.world, stuck)
			job := r.create(jobs.Request{Collection: status})
			r.await(job, "in the middle", func(jobs.Job) bool { return r.world.Faults("hang") > 0 })
			r.stop()
			r.world.ResetRequests()
			listOnly(r.world, nil)
			r.run(options{})
			job = r.finish(job)
			r.wantTruth(status)
			want := index.Tally{Records: 3000 - deleted, Updated: deleted, Deleted: deleted}
			if job.Tally != want || job.Reasons["exact"] != 1 {
				t.Errorf("job: %+v, want %+v", job, want)
			}
			for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords }) {
				if q.Cursor == "" {
					t.Error("the listing was begun anew")
				}
			}
		})
	}
}

// TestListingWithoutAnEndIsIncomplete has listings that come to no end. What they list is
// stored, nothing is deleted, and they are not followed for ever.
func TestListingWithoutAnEndIsIncomplete(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, size := range []int{1, 2, 40, 350, 1300} {
		for _, b := range []zoo.Behaviour{zoo.WrappingPages(100), zoo.CyclingCursors(), zoo.RepeatedCursor()} {
			t.Run(b.Name, func(t *testing.T) {
				t.Parallel()
				r, did := longRepo(t, size)
				r.world.Assign(did, b)
				job := r.complete(jobs.Request{Collection: status})
				if repo := r.repo(job, did); repo.Class != jobs.ClassFailed || repo.Reason != "incomplete" || repo.Detail == "" {
					t.Errorf("repo: %+v", repo)
				}
				want := min(size, 100) // of a first page
				if b.Name == "wrapping pages" {
					want = size
				}
				if n := len(r.served(status)); n != want || job.Tally.Records != int64(want) || job.Tally.Created != int64(want) {
					t.Errorf("%d records are served, want %d: %+v", n, want, job.Tally)
				}
				if n := r.world.Count(sandbox.PartPDS, listRecords); n > int64(3*(size/100+14)) {
					t.Errorf("%d pages were read", n)
				}
				r.world.Assign(did, nil)
				r.complete(jobs.Request{Collection: status})
				r.wantTruth(status)
				if size == 1 {
					return
				}
				deleted := r.remove(did, func(i int) bool { return i == size-1 || i%90 == 10 })
				r.world.Assign(did, b)
				if job = r.complete(jobs.Request{Collection: status}); job.Tally.Deleted != 0 || job.Reasons["incomplete"] != 1 || deleted == 0 {
					t.Errorf("%d were deleted in the repo, job: %+v", deleted, job)
				}
				if n := len(r.served(status)); n != size {
					t.Errorf("%d records are served, of %d", n, size)
				}
			})
		}
	}
}

// TestRecordThatSlippedFromAListingStays has a host that lists by the time of creation and
// loses records between its pages. Only what it says is not there is deleted.
func TestRecordThatSlippedFromAListingStays(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	refuses := func(status int, body string) func(sandbox.Request) sandbox.Fault {
		return func(q sandbox.Request) sandbox.Fault {
			if q.Method != getRecord {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Name: "refused", Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)}
		}
	}
	for name, c := range map[string]struct {
		size    int
		hook    func(sandbox.Request) sandbox.Fault
		deletes bool
	}{
		"at once":              {350, nil, true},
		"in steps":             {1300, nil, true},
		"without getRecord":    {350, refuses(http.StatusNotImplemented, `{"error":"MethodNotImplemented"}`), false},
		"it is refused":        {1300, refuses(http.StatusBadRequest, `{"error":"InvalidRequest","message":"no"}`), false},
		"it says so of others": {350, refuses(http.StatusBadRequest, `{"error":"InvalidRequest","message":"com.example.x y not found"}`), false},
		"it is sick":           {350, refuses(http.StatusInternalServerError, `{"error":"InternalServerError"}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, did := longRepo(t, c.size)
			r.complete(jobs.Request{Collection: status})
			deleted := r.remove(did, func(i int) bool { return i%60 == 30 })
			r.world.Assign(did, zoo.LostTies(100))
			listOnly(r.world, c.hook)
			job := r.complete(jobs.Request{Collection: status})
			if repo := r.repo(job, did); repo.Class != jobs.ClassFailed || repo.Reason != "incomplete" || repo.Detail == "" {
				t.Errorf("repo: %+v", repo)
			}
			if !c.deletes {
				deleted = 0
			}
			served := r.served(status)
			if job.Tally.Deleted != deleted || len(served) != c.size-int(deleted) {
				t.Errorf("%d records are served, of %d, and %d were to go: %+v", len(served), c.size, deleted, job.Tally)
			}
			for uri := range r.world.Truth(status) {
				if _, ok := served[uri]; !ok {
					t.Errorf("%s is gone", uri)
				}
			}
			r.world.Assign(did, nil)
			r.complete(jobs.Request{Collection: status})
			r.wantTruth(status)
		})
	}
}

// TestRepoThatChangesWhileItIsListedInNoOrder is never complete, however often it is read.
func TestRepoThatChangesWhileItIsListedInNoOrder(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for name, c := range map[string]struct {
		size  int
		times int64 // it changes
		want  string
	}{"once": {350, 1, "exact"}, "twice, in steps": {1300, 2, "exact"}, "always": {350, 1 << 30, "incomplete"}, "always, in steps": {1300, 1 << 30, "incomplete"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, did := longRepo(t, c.size)
			r.complete(jobs.Request{Collection: status})
			deleted := r.remove(did, func(i int) bool { return i%50 == 3 })
			r.world.Assign(did, zoo.CreationOrder(100))
			var changes atomic.Int64
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method == listRecords && q.Cursor == "n99" && changes.Add(1) <= c.times {
					r.grow(did, status, 1)
				}
				return sandbox.Fault{}
			})
			job := r.complete(jobs.Request{Collection: status})
			if job.Reasons[c.want] != 1 {
				t.Errorf("job: %+v, want %s", job, c.want)
			}
			if c.want == "exact" {
				r.wantTruth(status)
				return
			}
			if changes.Load() != 3 || job.Tally.Deleted != 0 || len(r.served(status)) < c.size {
				t.Errorf("read %d times, %d records are served, %d were deleted: %+v", changes.Load(), len(r.served(status)), deleted, job.Tally)
			}
		})
	}
}

// TestWholeRepoShowsWhatIsAbsentFromAListingInNoOrder has more records deleted than are
// asked for one by one where the host gives the whole repo.
func TestWholeRepoShowsWhatIsAbsentFromAListingInNoOrder(t *testing.T) {
	t.Parallel()
	for deletes, whole := range map[int]int64{3: 0, 12: 1} {
		r, did := longRepo(t, 300)
		r.world.SetFault(nil)
		r.complete(jobs.Request{Collection: status})
		r.remove(did, func(i int) bool { return i%20 == 10 && i < 20*deletes })
		r.world.Assign(did, zoo.CreationOrder(100))
		r.world.ResetRequests()
		job := r.complete(jobs.Request{Collection: status})
		r.wantTruth(status)
		if n := r.world.Count(sandbox.PartPDS, getRepo); n != whole || job.Reasons["exact"] != 1 || job.Tally.Deleted != int64(deletes) {
			t.Errorf("%d were deleted, %d times read in one piece: %+v", deletes, n, job)
		}
	}
}

// TestOrderIsRememberedOverARestart has the first page of a listing be out of order, and a
// later one, which comes after a restart, leave out a record that is there.
func TestOrderIsRememberedOverARestart(t *testing.T) {
	t.Parallel()
	r, did := longRepo(t, 1500)
	r.complete(jobs.Request{Collection: status})
	var pages atomic.Int64
	hook := func(hangs bool) func(sandbox.Request) sandbox.Fault {
		return func(q sandbox.Request) sandbox.Fault {
			if q.Method != listRecords {
				return sandbox.Fault{}
			}
			switch n := pages.Add(1); {
			case n == 9 && hangs:
				return sandbox.Fault{Hang: true}
			case q.Cursor == "":
				return sandbox.Fault{Name: "out of order", Rewrite: entries(t, func(list []json.RawMessage) []json.RawMessage {
					list[1], list[5] = list[5], list[1]
					return list
				})}
			case n == 11:
				return sandbox.Fault{Name: "slips", Rewrite: entries(t, func(list []json.RawMessage) []json.RawMessage {
					return slices.Delete(list, 40, 41)
				})}
			}
			return sandbox.Fault{}
		}
	}
	listOnly(r.world, hook(true))
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "in the middle", func(jobs.Job) bool { return r.world.Faults("hang") > 0 })
	r.stop()
	listOnly(r.world, hook(false))
	r.run(options{})
	job = r.finish(job)
	r.wantTruth(status)
	if r.world.Faults("slips") != 1 || r.world.Faults("out of order") == 0 || job.Tally.Deleted != 0 {
		t.Errorf("job: %+v", job)
	}
	if asked := r.world.Requests(func(q sandbox.Request) bool { return q.Method == getRecord && q.DID == did.String() }); len(asked) != 1 {
		t.Errorf("%d records were asked for", len(asked))
	}
}

// entries rewrites the entries of a page.
func entries(t *testing.T, change func([]json.RawMessage) []json.RawMessage) func(sandbox.Answer) sandbox.Answer {
	t.Helper()
	return func(a sandbox.Answer) sandbox.Answer {
		var page struct {
			Records []json.RawMessage `json:"records"`
			Cursor  string            `json:"cursor,omitempty"`
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			t.Error(err)
			return a
		}
		page.Records = change(page.Records)
		body, err := json.Marshal(page)
		if err != nil {
			t.Error(err)
		}
		a.Body = body
		return a
	}
}
