package backfill_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// never follows no short page that can be taken for the end.
func never(syntax.DID) bool { return false }

// inOrder are the repos of a world in the order of a host's queue.
func inOrder(w *sandbox.World) (dids []syntax.DID) {
	for _, repo := range w.Repos() {
		dids = append(dids, repo.DID)
	}
	slices.Sort(dids)
	return dids
}

// firstPages is how often the listing of a repo was begun.
func firstPages(w *sandbox.World) map[syntax.DID]int {
	begun := map[syntax.DID]int{}
	for _, q := range w.Requests(func(q sandbox.Request) bool { return q.Method == listRecords && q.Cursor == "" }) {
		begun[syntax.DID(q.DID)]++
	}
	return begun
}

// again is how many repos were listed more than once from the beginning.
func again(w *sandbox.World) (n int) {
	for _, times := range firstPages(w) {
		if times > 1 {
			n++
		}
	}
	return n
}

// assumed is how many repos of a job are settled with their end assumed.
func (r *rig) assumed(job jobs.Job) int {
	r.t.Helper()
	n := 0
	for after, more := syntax.DID(""), true; more; more = after != "" {
		list, next, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, after, 1000, func(repo jobs.JobRepo) bool { return repo.Assumed })
		if err != nil {
			r.t.Fatal(err)
		}
		n, after = n+len(list), next
	}
	return n
}

// newWatchedRig has every committed state of every job compared with the one
// before: no counter may go back.
func newWatchedRig(t *testing.T, world sandbox.Config, o options) *rig {
	t.Helper()
	var r *rig
	last := map[uuid.UUID]jobs.Job{}
	o.store.Hooks.AfterCommit = func() error {
		jobs, err := r.store.Jobs.List(context.Background())
		for _, j := range jobs {
			storetest.NothingBack(t, last[j.ID], j)
			last[j.ID] = j
		}
		return err
	}
	r = newRigWith(t, world, o)
	return r
}

func TestShortPagesThatProveToBeTheEndAreBelieved(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 100, Repos: 1000, Hosts: 1, Collections: statuses(1, 12)})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.Reasons["exact"] != 1000 {
		t.Errorf("job: %+v", job)
	}
	// The steady state: the second half of the requests.
	all := r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS })
	late := all[len(all)/2:]
	repos, tails := 0, 0
	for _, q := range late {
		switch {
		case q.Method == repoStatus:
			repos++
		case q.Cursor != "":
			tails++
		}
	}
	t.Logf("%d requests in all, then %d for %d repos, %d of them behind a short page", len(all), len(late), repos, tails)
	if float64(len(late)) > 2.1*float64(repos) {
		t.Errorf("%d requests for %d repos", len(late), repos)
	}
	tails = 0
	for _, q := range all {
		if q.Cursor != "" {
			tails++
		}
	}
	if tails < 32 || r.assumed(job) != 1000-tails {
		t.Errorf("%d short pages were followed, %d taken for the end", tails, r.assumed(job))
	}
}

// TestLargePageIsNotTakenForTheEnd has a host of small repos, whose pages prove to be
// the end, and of a few repos with a page that it may have cut for its size.
func TestLargePageIsNotTakenForTheEnd(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	const notes, page = sandbox.NoteCollection, 12
	o := options{check: never}
	r := newRigWith(t, sandbox.Config{Seed: 107, Repos: 150, Hosts: 1, Collections: []sandbox.Collection{
		{NSID: status, Share: 1, MinRecords: page, MaxRecords: page},
		{NSID: notes, Share: 1, MinRecords: page, MaxRecords: page, RecordBytes: 12 << 10},
	}}, o)
	small, large := r.complete(jobs.Request{Collection: status}), r.complete(jobs.Request{Collection: notes})
	r.wantTruth("")
	if r.assumed(small) == 0 {
		t.Error("no small page was taken for the end")
	}
	if n := r.assumed(large); n != 0 {
		t.Errorf("%d pages of %d KiB were taken for the end", n, page*12)
	}
}

func TestOneInFiftyIsLookedAt(t *testing.T) {
	t.Parallel()
	n := 0
	for range 20_000 {
		if backfill.CheckNow("did:plc:a") {
			n++
		}
	}
	if n < 250 || n > 550 {
		t.Errorf("%d of 20,000 are looked at, want about 400", n)
	}
}

func TestStrictHostCostsAThirdRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 101, Repos: 400, Hosts: 1, Collections: statuses(2, 12)})
	dids := inOrder(r.world)
	newTurns(dids[:1], dids[1:]).watch(r.world, dids[:1])
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if r.world.Faults("short pages") == 0 || r.assumed(job) != 0 || job.Reasons["exact"] != 400 {
		t.Errorf("%d ends assumed, job: %+v", r.assumed(job), job)
	}
	if n := r.world.Count(sandbox.PartPDS, ""); float64(n) > 3.1*400 {
		t.Errorf("%d requests for 400 repos", n)
	}
}

func TestShortPagesThatAreNotTheEndAreFollowed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		most, more int // on a page, and records of the last repos beyond the usual
	}{
		"from the first repo on": {3, 60},
		// Shorter ones have proved to be the end before a longer one comes.
		"half of what is asked for":                         {50, 60},
		"half of what is asked for, and read whole at last": {50, 300},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newWatchedRig(t, sandbox.Config{Seed: 102, Repos: 100, Hosts: 1, Collections: statuses(4, 8)}, options{check: never})
			dids := inOrder(r.world)
			for _, did := range dids[80:] {
				r.grow(did, status, c.more)
			}
			newTurns(dids[:80], dids[80:]).watch(r.world, nil)
			r.world.AssignHost(r.world.HostURLs()[0], zoo.ShortPages(c.most, 0))
			job := r.complete(jobs.Request{Collection: status})
			r.wantTruth(status)
			if r.world.Faults("short pages") == 0 || job.Reasons["exact"] != 100 || job.Tally.Created != job.Tally.Records {
				t.Errorf("job: %+v", job)
			}
			if whole := r.world.Count(sandbox.PartPDS, getRepo) > 0; whole != (c.more > 250 || c.most < 10) {
				t.Errorf("read in one piece: %t", whole)
			}
			if known, err := r.store.Work.Distrusted(t.Context(), r.world.HostURLs()[0]); err != nil || !known {
				t.Errorf("the host is trusted: %v", err)
			}
		})
	}
}

// TestRecordWrittenBehindAPageProvesNothing has records appear behind a short page
// while a repo is read: once for one repo, and whenever it is read for another.
func TestRecordWrittenBehindAPageProvesNothing(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 110, Repos: 40, Hosts: 1, Collections: statuses(2, 8)}, options{check: func(syntax.DID) bool { return true }})
	busy, restless := r.world.Repos()[0].DID, r.world.Repos()[1].DID
	var mu sync.Mutex
	written, begun := map[syntax.DID]int{}, map[syntax.DID]bool{}
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		did := syntax.DID(q.DID)
		if q.Method != listRecords || did != busy && did != restless {
			return sandbox.Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if q.Cursor == "" {
			begun[did] = true
		} else if begun[did] && (did == restless || written[did] == 0) {
			begun[did] = false
			written[did]++
			key := syntax.RecordKey(fmt.Sprintf("222222222222%d", 9-written[did])) // below all others
			if _, err := r.world.Create(did, status, key, map[string]any{"$type": string(status)}); err != nil {
				t.Error(err)
			}
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if known, err := r.store.Work.Distrusted(t.Context(), r.world.HostURLs()[0]); err != nil || known {
		t.Errorf("the host is not trusted any more: %v", err)
	}
	if written[busy] != 1 || written[restless] != 3 || job.Reasons["exact"] != 39 || job.Reasons["changed_during_read"] != 1 {
		t.Errorf("written %v, job: %+v", written, job)
	}
}

// grow writes records into a repo, in one commit.
func (r *rig) grow(did syntax.DID, c syntax.NSID, n int) {
	r.t.Helper()
	var writes []sandbox.Write
	for i := range n {
		writes = append(writes, sandbox.Write{Op: sandbox.OpCreate, Collection: c, Value: map[string]any{"$type": string(c), "n": i}})
	}
	if _, err := r.world.Apply(did, writes); err != nil {
		r.t.Fatal(err)
	}
}

// turns has the relay name repos in turn: those of a turn when all of the turn
// before have been read.
type turns struct {
	dids [][]syntax.DID
	of   map[syntax.DID]int
	done []chan struct{}

	mu   sync.Mutex
	left []map[syntax.DID]bool
}

func newTurns(all ...[]syntax.DID) *turns {
	x := &turns{dids: all, of: map[syntax.DID]int{}}
	for i, dids := range all {
		left := map[syntax.DID]bool{}
		for _, did := range dids {
			x.of[did], left[did] = i, true
		}
		x.left, x.done = append(x.left, left), append(x.done, make(chan struct{}))
	}
	return x
}

// answer is to be asked about every request.
func (x *turns) answer(q sandbox.Request) sandbox.Fault {
	switch q.Method {
	case listRecords:
		x.mark(syntax.DID(q.DID))
	case byCollection:
		turn := 0
		if q.Cursor != "" {
			turn, _ = strconv.Atoi(q.Cursor)
			<-x.done[turn-1]
		}
		var page struct {
			Repos  []map[string]syntax.DID `json:"repos"`
			Cursor string                  `json:"cursor,omitempty"`
		}
		for _, did := range x.dids[turn] {
			page.Repos = append(page.Repos, map[string]syntax.DID{"did": did})
		}
		if turn+1 < len(x.dids) {
			page.Cursor = strconv.Itoa(turn + 1)
		}
		body, err := json.Marshal(page)
		if err == nil {
			return says("turn", string(body))
		}
	}
	return sandbox.Fault{}
}

func (x *turns) mark(did syntax.DID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	turn, ok := x.of[did]
	if !ok || !x.left[turn][did] {
		return
	}
	if delete(x.left[turn], did); len(x.left[turn]) == 0 {
		close(x.done[turn])
	}
}

// letGo is a turn of its own, for a test to end with mark. It is no repo.
const letGo = syntax.DID("let go")

// watch has the turns be kept, and short pages given for some of the repos.
func (x *turns) watch(w *sandbox.World, liars []syntax.DID) {
	for _, did := range liars {
		w.Assign(did, zoo.ShortPages(1, 0))
	}
	w.SetFault(x.answer)
}

// TestCounterExampleReopensWhatWasTakenForTheEnd has a host whose short pages are
// the end of 200 listings, and not of the next 100. The last of these is looked at.
func TestCounterExampleReopensWhatWasTakenForTheEnd(t *testing.T) {
	t.Parallel()
	var looked syntax.DID
	r := newWatchedRig(t, sandbox.Config{Seed: 103, Repos: 300, Hosts: 1, Collections: statuses(2, 8)}, options{
		check: func(did syntax.DID) bool { return did == looked },
	})
	dids := inOrder(r.world)
	looked = dids[299]
	newTurns(dids[:200], dids[200:299], dids[299:]).watch(r.world, nil)
	r.world.AssignHost(r.world.HostURLs()[0], zoo.ShortPages(1, 200))
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	want := int64(len(r.world.Truth(status)))
	if job.Tally != (index.Tally{Records: want, Created: want}) || job.Reasons["exact"] != 300 || job.Reopened != 0 {
		t.Errorf("job: %+v", job)
	}
	if n := again(r.world); n < 99 {
		t.Errorf("%d repos were listed again, want those whose end was assumed", n)
	}
	if n := r.assumed(job); n != 0 {
		t.Errorf("%d ends stay assumed", n)
	}
	r.wantHosts(job)
	// It is not forgotten: the next job follows every page.
	next := r.complete(jobs.Request{Collection: status})
	if n := r.assumed(next); n != 0 {
		t.Errorf("%d ends assumed by the next job", n)
	}
}

// TestWhatOneJobFindsOutReopensTheOthers has a job over one repo find out what a
// job over the network, which is nearly done, has not looked at. Until the repos of
// that one are read anew, some fall ill, go and move.
func TestWhatOneJobFindsOutReopensTheOthers(t *testing.T) {
	t.Parallel()
	r := newWatchedRig(t, sandbox.Config{Seed: 104, Repos: 400, Hosts: 2, Collections: statuses(2, 8)}, options{
		config: backfill.Config{Attempts: 2}, check: never,
	})
	home, other := r.world.HostURLs()[0], r.world.HostURLs()[1]
	var here, there []syntax.DID
	for _, repo := range r.world.Repos() {
		if repo.Host == home {
			here = append(here, repo.DID)
		} else {
			there = append(there, repo.DID)
		}
	}
	liars := here[100:]
	x := newTurns(slices.Concat(here[:100], there[1:]), liars, []syntax.DID{letGo}, there[:1])
	x.watch(r.world, liars)
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "all but done", func(j jobs.Job) bool { return j.Processed == 399 })
	before := r.assumed(job)
	sick, gone, moved, witness := liars[10], liars[11], liars[12], liars[13]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.DID == string(sick) && (q.Method == listRecords || q.Method == getRepo) {
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return x.answer(q)
	})
	if err := r.world.DeleteAccount(gone); err != nil {
		t.Fatal(err)
	}
	if err := r.world.Move(moved, other); err != nil {
		t.Fatal(err)
	}
	r.world.Assign(moved, nil)
	r.complete(jobs.Request{DID: witness, Collection: status})
	x.mark(letGo)
	job = r.finish(job)
	if job.Status != api.StatusCompleted || job.Failed != 1 || job.Unavailable != 1 || job.Reasons["http_5xx"] != 1 || job.Reasons["exact"] != 398 {
		t.Errorf("job: %+v", job)
	}
	if n := r.assumed(job); before < 200 || n > before-len(liars) {
		t.Errorf("%d ends were assumed, and %d in the end", before, n)
	}
	if r.world.Faults("sick") == 0 {
		t.Error("no fault was injected")
	}
	r.world.SetFault(nil)
	r.retry(job)
	r.wantTruth(status)
}

// TestRetryReadsWhatWasTakenForTheEnd finds out about a job that has ended, or was
// cancelled, that its ends were none.
func TestRetryReadsWhatWasTakenForTheEnd(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]bool{"cancelled": true, "completed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 106, Repos: 200, Hosts: 1, Collections: statuses(2, 8)}, options{check: never})
			dids := inOrder(r.world)
			liars := dids[100:199]
			x := newTurns(dids[:100], liars, []syntax.DID{letGo}, dids[199:])
			x.watch(r.world, liars)
			first := r.create(jobs.Request{Collection: status})
			r.await(first, "all but done", func(j jobs.Job) bool { return j.Processed == 199 })
			if cancel {
				if _, err := r.b.Move(t.Context(), first.ID, api.StatusCancelling); err != nil {
					t.Fatal(err)
				}
			}
			x.mark(letGo)
			first = r.finish(first)
			r.complete(jobs.Request{DID: liars[0], Collection: status})
			if len(r.served(status)) == len(r.world.Truth(status)) {
				t.Fatal("nothing was missed")
			}
			second := r.retry(first)
			r.wantTruth(status)
			if second.TotalRepos < 99 || r.assumed(second) != 0 {
				t.Errorf("carried on: %+v", second)
			}
		})
	}
}

func TestWhatIsHeldBehindAShortPageIsLookedFor(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	// More than wait for the writer at once: some are read after the trust is committed.
	const repos, emptied = 1000, 50
	r := newRigWith(t, sandbox.Config{Seed: 107, Repos: repos, Hosts: 1, Collections: statuses(3, 8)}, options{check: never})
	r.complete(jobs.Request{Collection: status})
	shrunk := inOrder(r.world)[repos-emptied:]
	for _, did := range shrunk {
		keys := []syntax.RecordKey{}
		for _, rec := range r.world.TruthOf(did, status) {
			keys = append(keys, rec.RKey)
		}
		if err := r.world.Delete(did, status, slices.Min(keys)); err != nil {
			t.Fatal(err)
		}
	}
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.Tally.Deleted != emptied || job.Reasons["exact"] != repos || r.assumed(job) == 0 || r.assumed(job) > repos-emptied {
		t.Errorf("%d ends assumed, job: %+v", r.assumed(job), job)
	}
}

// TestAssumedEndOfAStepLapses has a repo that is read in steps, with the end of
// its first collection assumed, when its host turns out not to be trusted.
func TestAssumedEndOfAStepLapses(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 108, Repos: 150, Hosts: 1, Collections: []sandbox.Collection{
		{NSID: notes, Share: 1, MinRecords: 3, MaxRecords: 8}, {NSID: status, Share: 1, MinRecords: 3, MaxRecords: 3},
	}}, options{check: never})
	for _, c := range []syntax.NSID{notes, status} {
		if err := r.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	dids := inOrder(r.world)
	large, liar := dids[149], dids[148]
	r.grow(large, notes, 400) // four full pages, and one that is short
	r.world.Assign(liar, zoo.ShortPages(1, 0))
	held, ready := make(chan struct{}), make(chan struct{})
	var once sync.Once
	x := newTurns(dids[:148], dids[148:149], dids[149:])
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.DID == string(large) && q.Method == listRecords && q.Collection == status {
			once.Do(func() { close(held) })
			<-ready
		}
		return x.answer(q)
	})
	all := r.create(jobs.Request{})
	<-held
	owed, err := r.store.Work.Owed(t.Context(), all.Seq, r.world.HostURLs()[0], "", 200)
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, o := range owed {
		if o.DID == large && o.Position != nil && o.Position.Read[notes].Assumed {
			steps++
		}
	}
	if steps != 1 {
		t.Fatalf("no step with an end assumed: %+v", owed)
	}
	r.complete(jobs.Request{DID: liar, Collection: status})
	close(ready)
	all = r.finish(all)
	r.wantTruth(notes)
	r.wantTruth(status)
	want := int64(len(r.world.Truth(notes, status)))
	found := int64(len(r.world.TruthOf(liar, status)) - 1) // by the other job
	if all.Tally.Records != want || all.Tally.Created != want-found || all.Reasons["exact"] != 150 {
		t.Errorf("%d records, job: %+v", want, all)
	}
	if n := firstPages(r.world)[large]; n < 3 {
		t.Errorf("its listings were begun %d times", n)
	}
}
