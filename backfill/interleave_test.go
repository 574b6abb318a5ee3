package backfill_test

import (
	"errors"
	"net/http"
	"slices"
	"sync"
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
	"appview/store/storetest"
)

// Jobs and the world in orders that are rare, and hard to be right in.

// gate holds requests up until it is opened.
type gate struct {
	held   chan struct{} // closed when the first has come
	opened chan struct{}
	once   sync.Once
}

func newGate() *gate { return &gate{held: make(chan struct{}), opened: make(chan struct{})} }

// wait is where a request is held up.
func (g *gate) wait() {
	g.once.Do(func() { close(g.held) })
	<-g.opened
}

// arrival waits for the first request.
func (g *gate) arrival(t *testing.T) {
	t.Helper()
	select {
	case <-g.held:
	case <-time.After(patience):
		t.Fatal("no request has come to the gate")
	}
}

// stored is whether the index serves a record of a repo.
func (r *rig) stored(did syntax.DID, rkey syntax.RecordKey) bool {
	_, ok := r.served(status)["at://"+did.String()+"/"+status.String()+"/"+rkey.String()]
	return ok
}

// keysOf are the record keys of a repo, the highest first, as a listing has them.
func (r *rig) keysOf(did syntax.DID) (keys []syntax.RecordKey) {
	for _, rec := range r.world.TruthOf(did, status) {
		keys = append(keys, rec.RKey)
	}
	slices.Sort(keys)
	slices.Reverse(keys)
	return keys
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestRepoThatChangesBetweenTheProbesOfTwoJobs holds the first job up between its
// probe and its page. What the repo becomes meanwhile is seen by the second, which
// must not ask for the rev before the first has handed over what it read.
func TestRepoThatChangesBetweenTheProbesOfTwoJobs(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 70, Repos: 2, Hosts: 1, Collections: statuses(5, 5)})
	dids := inOrder(r.world)
	did := dids[0]
	g := newGate()
	var pages atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && q.DID == string(did) && pages.Add(1) == 1 {
			g.wait()
		}
		return sandbox.Fault{}
	})
	one := r.create(jobs.Request{DID: did, Collection: status})
	g.arrival(t)
	keys := r.keysOf(did)
	r.must(r.world.Delete(did, status, keys[0]))
	two := r.create(jobs.Request{DIDs: dids, Collection: status})
	// It comes to the other repo after this one.
	r.await(two, "past the repo", func(j jobs.Job) bool { return j.Processed > 0 })
	_, err := r.world.Update(did, status, keys[1], map[string]any{"$type": string(status), "status": "🦀", "createdAt": "2026-01-01T00:00:00Z"})
	r.must(err)
	close(g.opened)
	one, two = r.finish(one), r.finish(two)
	r.wantTruth(status)
	if one.Reasons["exact"] != 1 || two.Reasons["exact"] != 2 || one.Tally != (index.Tally{Records: 4, Created: 4}) || two.Tally != (index.Tally{Records: 9, Created: 5}) {
		t.Errorf("the first %+v, the second %+v", one, two)
	}
	seen := r.world.Requests(func(q sandbox.Request) bool { return q.DID == string(did) && q.Part == sandbox.PartPDS })
	slices.SortFunc(seen, func(a, b sandbox.Request) int { return int(a.Number - b.Number) })
	for i, q := range seen[1:] {
		if before := seen[i]; q.Method == repoStatus && before.Ended.After(q.Started) {
			t.Errorf("%s is asked while %s is not answered", q.Method, before.Method)
		}
	}
}

// TestLargeRepoReadByTwoJobsInTurns has a job read half of a large repo and stumble, another
// read all of it, changed, and the first go on with its position.
func TestLargeRepoReadByTwoJobsInTurns(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 71, Repos: 1, Hosts: 1, Collections: statuses(1200, 1200)}, options{
		config: backfill.Config{Retry: 3 * time.Second}, check: func(syntax.DID) bool { return true },
	})
	did := r.world.Repos()[0].DID
	g := newGate()
	var pages atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && pages.Add(1) == 8 { // behind the first step
			g.wait()
			return sandbox.Fault{Name: "stumble", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return sandbox.Fault{}
	})
	one := r.create(jobs.Request{Collection: status})
	g.arrival(t)
	if n := len(r.served(status)); n < 500 || n >= 1200 {
		t.Fatalf("%d records are stored when the first job stumbles", n)
	}
	// What it has read goes, changes, and comes; so does what it has not.
	keys := r.keysOf(did)
	value := map[string]any{"$type": string(status), "status": "🦀", "createdAt": "2026-01-01T00:00:00Z"}
	for _, i := range []int{10, 1100} {
		r.must(r.world.Delete(did, status, keys[i]))
		_, err := r.world.Update(did, status, keys[i+1], value)
		r.must(err)
	}
	_, err := r.world.Create(did, status, "", value)
	r.must(err)
	two := r.create(jobs.Request{DID: did, Collection: status})
	r.await(two, "fetching", func(j jobs.Job) bool { return j.Stage == api.StageFetching })
	close(g.opened)
	two = r.finish(two)
	if r.job(one).Status.Final() {
		t.Fatal("the first job did not wait: nothing is proved")
	}
	r.wantTruth(status)
	// And once more before the first goes on: a record is made again that it has missed.
	r.must(r.world.Delete(did, status, keys[20]))
	_, err = r.world.Create(did, status, keys[20], value)
	r.must(err)
	one = r.finish(one)
	r.wantTruth(status)
	if n := int64(len(r.keysOf(did))); one.Tally.Records != n || two.Tally.Records != n || one.Failed+two.Failed != 0 {
		t.Errorf("%d records, first %+v, second %+v", n, one, two)
	}
	if one.Reasons["exact"] != 1 || two.Reasons["exact"] != 1 || r.world.Faults("stumble") != 1 {
		t.Errorf("first %v, second %v", one.Reasons, two.Reasons)
	}
}

// TestAccountThatMovesInTheMiddleOfItsPages moves a large repo to another host when some
// of its pages are saved. Nothing that the old host said may be counted.
func TestAccountThatMovesInTheMiddleOfItsPages(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 72, Repos: 1, Hosts: 2, Collections: statuses(1200, 1200)}, options{
		check: func(syntax.DID) bool { return true },
	})
	did, urls := r.world.Repos()[0].DID, r.world.HostURLs()
	var once sync.Once
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && q.Host == urls[0] && len(r.served(status)) >= 500 {
			once.Do(func() {
				r.must(r.world.Move(did, urls[1]))
				r.must(r.world.Delete(did, status, r.keysOf(did)[3]))
			})
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.TotalRepos != 1 || job.Tally.Records != 1199 || job.Reasons["exact"] != 1 {
		t.Errorf("job: %+v", job)
	}
	hosts, err := r.store.Jobs.JobHosts(t.Context(), job.Seq)
	if err != nil || len(hosts) != 2 || hosts[0].Host != urls[1] || hosts[0].Records != 1199 || hosts[0].Completed != 1 || hosts[1].Total != 0 {
		t.Errorf("hosts: %+v, %v", hosts, err)
	}
	if n := r.world.CountAt(urls[1], listRecords); n < 12 {
		t.Errorf("%d pages read at the new host, it has 12", n)
	}
}

// TestAccountThatMovesJustBeforeItIsFetched moves it between the look-up that its key
// comes from and the request for the whole repo.
func TestAccountThatMovesJustBeforeItIsFetched(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 77, Repos: 1, Hosts: 2, Collections: statuses(5, 5)})
	did, urls := r.world.Repos()[0].DID, r.world.HostURLs()
	var once sync.Once
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == getRepo {
			once.Do(func() { r.must(r.world.Move(did, urls[1])) })
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{})
	r.wantTruth(status)
	if job.Tally.Records != 5 || job.Reasons["exact"] != 1 || r.world.CountAt(urls[0], getRepo) != 1 || r.world.CountAt(urls[1], getRepo) != 1 {
		t.Errorf("job: %+v", job)
	}
}

// TestAccountThatIsSwitchedOffJustBeforeItIsFetched has a host that says of every
// account that it does not serve that there is no such repo: only the status tells
// why. An account that is not to be found is deleted in the end.
func TestAccountThatIsSwitchedOffJustBeforeItIsFetched(t *testing.T) {
	t.Parallel()
	for _, method := range []string{getRepo, describeRepo, listRecords} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 78, Repos: 1, Hosts: 1, Collections: statuses(5, 5)})
			did := r.world.Repos()[0].DID
			r.complete(jobs.Request{})
			var off sync.Once
			var is atomic.Bool
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Method == method {
					off.Do(func() { r.must(r.world.Deactivate(did)); is.Store(true) })
				}
				switch {
				case is.Load() && (q.Method == getRepo || q.Method == describeRepo || q.Method == listRecords):
					f := says("unknown", `{"error":"RepoNotFound","message":"Could not find repo"}`)
					f.Status = http.StatusBadRequest
					return f
				case q.Method == getRepo:
					return sandbox.Fault{Name: "no getRepo", Status: http.StatusNotImplemented}
				default:
					return sandbox.Fault{}
				}
			})
			job := r.complete(jobs.Request{})
			if job.Reasons["deactivated"] != 1 || r.world.Faults("unknown") == 0 {
				t.Errorf("job: %+v", job)
			}
		})
	}
}

// TestHostThatShowsAnOlderRev has a host answer as it was before the last job: with
// an older rev, and with what the repo held then. Nothing of that may be believed.
func TestHostThatShowsAnOlderRev(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 73, Repos: 2, Hosts: 1, Collections: statuses(5, 5)})
	dids := []syntax.DID{r.world.Repos()[0].DID, r.world.Repos()[1].DID}
	// What both methods answer for the first repo before it changes.
	var mu sync.Mutex
	old := map[string]sandbox.Answer{}
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.DID != string(dids[0]) || (q.Method != repoStatus && q.Method != listRecords) {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "kept", Rewrite: func(a sandbox.Answer) sandbox.Answer {
			mu.Lock()
			defer mu.Unlock()
			if _, ok := old[q.Method+q.Cursor]; !ok {
				old[q.Method+q.Cursor] = a
			}
			return a
		}}
	})
	r.complete(jobs.Request{Collection: status})
	keys := r.keysOf(dids[0])
	r.must(r.world.Delete(dids[0], status, keys[0]))
	_, err := r.world.Create(dids[0], status, "", map[string]any{"$type": string(status), "status": "🦀", "createdAt": "2026-01-01T00:00:00Z"})
	r.must(err)
	r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	seq := r.seq()

	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		mu.Lock()
		defer mu.Unlock()
		a, ok := old[q.Method+q.Cursor]
		if !ok || q.DID != string(dids[0]) {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "old", Rewrite: func(sandbox.Answer) sandbox.Answer { return a }}
	})
	job := r.complete(jobs.Request{Collection: status})
	if r.world.Faults("old") == 0 || job.Reasons["rev_went_back"] != 1 || job.Reasons["exact"] != 1 || job.Tally.Deleted != 0 {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth(status)
	if after := r.seq(); after != seq {
		t.Errorf("the highest seq went from %d to %d", seq, after)
	}
}

// TestHostThatIsLostAfterPageOneDeletesNothing has a host answer the first pages of a
// listing that has become shorter, and then nothing any more.
func TestHostThatIsLostAfterPageOneDeletesNothing(t *testing.T) {
	t.Parallel()
	for name, pages := range map[string]int{"after page one": 1, "after a step": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 74, Repos: 1, Hosts: 1, Collections: statuses(1200, 1200)}, options{
				check: func(syntax.DID) bool { return true },
			})
			did := r.world.Repos()[0].DID
			listOnly(r.world, nil)
			r.complete(jobs.Request{Collection: status})
			keys := r.keysOf(did)
			for _, i := range []int{5, 50, 650, 1150} {
				r.must(r.world.Delete(did, status, keys[i]))
			}
			var asked atomic.Int64
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method == listRecords && asked.Add(1) > int64(pages) {
					return sandbox.Fault{Name: "lost", Cut: true}
				}
				return sandbox.Fault{}
			})
			job := r.complete(jobs.Request{Collection: status})
			if r.world.Faults("lost") == 0 || job.Failed != 1 || job.Tally.Deleted != 0 {
				t.Errorf("job: %+v", job)
			}
			for _, i := range []int{5, 50, 650, 1150} {
				if !r.stored(did, keys[i]) {
					t.Errorf("record %d is deleted, though the listing never came to its end", i)
				}
			}
			listOnly(r.world, nil)
			again, err := r.b.Retry(t.Context(), job.ID)
			r.must(err)
			if again = r.finish(again); again.Tally.Deleted != 4 || again.Reasons["exact"] != 1 {
				t.Errorf("retry: %+v", again)
			}
			r.wantTruth(status)
		})
	}
}

// TestRecordsAreDeletedWhileAJobReadsThem asks for a deletion of everything, in many
// small steps, when a job has read some repos, is reading others, and has still to
// come to the rest. What was there must go; what the job finds after that must stay,
// and its counters be right.
func TestRecordsAreDeletedWhileAJobReadsThem(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 75, Repos: 120, Hosts: 4, Collections: statuses(4, 8)}, options{
		store: store.Config{Hooks: store.Hooks{Step: 7}},
	})
	r.complete(jobs.Request{Collection: status})
	total := int64(len(r.world.Truth(status)))
	g := newGate()
	var pages atomic.Int64
	var mu sync.Mutex
	late := map[syntax.DID]bool{} // what is read after the deletion was asked for
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && pages.Add(1) > 40 {
			mu.Lock()
			late[syntax.DID(q.DID)] = true
			mu.Unlock()
			g.wait()
		}
		return sandbox.Fault{}
	})
	job := r.create(jobs.Request{Collection: status})
	g.arrival(t)
	r.await(job, "under way", func(j jobs.Job) bool { return j.Processed > 10 })
	type answer struct {
		n   int64
		err error
	}
	deleted := make(chan answer, 1)
	early, _, err := r.store.Jobs.JobRepos(t.Context(), job.Seq, "", 1000, func(repo jobs.JobRepo) bool { return repo.State == jobs.RepoSettled })
	r.must(err)
	before := r.seq()
	go func() {
		n, err := r.store.Collections.DeleteRecords(t.Context(), index.Filter{Collection: status})
		deleted <- answer{n, err}
	}()
	r.await(job, "being undone", func(jobs.Job) bool { return r.seq() > before })
	close(g.opened) // now both are at work
	d := <-deleted
	job = r.finish(job)
	if d.err != nil || d.n == 0 || d.n > total || len(early) == 0 {
		t.Errorf("%d of %d records deleted, %v, when %d repos were read", d.n, total, d.err, len(early))
	}
	if job.Status != api.StatusCompleted || job.Failed != 0 || job.Tally.Records != total {
		t.Errorf("job: %+v", job)
	}
	served := r.served(status)
	for _, repo := range early {
		for uri := range r.world.TruthOf(repo.DID, status) {
			if _, ok := served[uri]; ok {
				t.Errorf("%s was there when the deletion was asked for, and still is", uri)
			}
		}
	}
	for did := range late {
		for uri := range r.world.TruthOf(did, status) {
			if _, ok := served[uri]; !ok {
				t.Errorf("%s was found after the deletion was asked for, and is gone", uri)
			}
		}
	}
	kept := int64(len(served))
	if kept == 0 || kept > total || total-kept > d.n {
		t.Errorf("%d of %d records are left, and %d were deleted", kept, total, d.n)
	}
	again := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if again.Tally.Created != total-kept {
		t.Errorf("%d records were brought back, %d were missing", again.Tally.Created, total-kept)
	}
}

// TestExportSeesNothingOfDeletions begins an export, deletes everything, and reads on.
func TestExportSeesNothingOfDeletions(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 76, Repos: 60, Hosts: 2, Collections: statuses(3, 5)}, options{
		store: store.Config{Hooks: store.Hooks{Step: 5}},
	})
	r.complete(jobs.Request{Collection: status})
	want := r.world.Truth(status)
	seen, total := 0, len(want)
	err := r.store.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, func(rec *index.Record) error {
		if seen++; seen == total/3 {
			n, err := r.store.Collections.DeleteRecords(t.Context(), index.Filter{Collection: status})
			if err != nil || n != int64(total) {
				t.Errorf("%d of %d records deleted, %v", n, total, err)
			}
		}
		if w, ok := want[rec.URI().String()]; !ok || w.CID != rec.Body.CID.String() {
			return errors.New("export has " + rec.URI().String())
		}
		delete(want, rec.URI().String())
		return nil
	})
	if err != nil || len(want) != 0 {
		t.Errorf("%d records missing in the export, %v", len(want), err)
	}
	if n := len(r.served(status)); n != 0 {
		t.Errorf("%d records left", n)
	}
}
