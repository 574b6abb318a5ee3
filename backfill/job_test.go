package backfill_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const (
	status = sandbox.StatusCollection
	notes  = sandbox.NoteCollection

	getRepo      = "com.atproto.sync.getRepo"
	describeRepo = "com.atproto.repo.describeRepo"
	listRecords  = "com.atproto.repo.listRecords"
	repoStatus   = "com.atproto.sync.getRepoStatus"
	byCollection = "com.atproto.sync.listReposByCollection"
)

func TestJobMakesTheIndexEqualTheNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 1, Repos: 300, Hosts: 6})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	truth := r.world.Truth(status)
	if job.Tally != (index.Tally{Records: int64(len(truth)), Created: int64(len(truth))}) {
		t.Errorf("tally %+v for %d records", job.Tally, len(truth))
	}
	if requests := r.world.Count(sandbox.PartPDS, ""); float64(requests) > 3.1*float64(job.TotalRepos) {
		t.Errorf("%d requests for %d repos of one page", requests, job.TotalRepos)
	}
	if got := job.Reasons["exact"]; got != job.TotalRepos {
		t.Errorf("%d of %d repos exact: %v", got, job.TotalRepos, job.Reasons)
	}
}

func TestEveryCollectionIsCoveredWhenNoneIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 2, Repos: 60})
	r.complete(jobs.Request{})
	r.wantTruth("")
}

func TestTrackedCollectionsAreTheTargetsWhenNoneIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 3, Repos: 60})
	for _, c := range []syntax.NSID{status, notes} {
		if err := r.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	job := r.complete(jobs.Request{})
	r.wantTruth(status)
	r.wantTruth(notes)
	if got := len(r.served("")); got != len(r.world.Truth(status, notes)) {
		t.Errorf("%d records served of other collections too", got)
	}
	if job.TotalRepos == 0 || job.TotalRepos > 60 {
		t.Errorf("repos with two listed collections are counted %d times for 60", job.TotalRepos)
	}
}

func TestNamedRepoIsReadWithoutTheRelay(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 4, Repos: 10})
	did := r.world.Repos()[0].DID
	job := r.complete(jobs.Request{DID: did})
	if n := r.world.Count(sandbox.PartRelay, ""); n != 0 {
		t.Errorf("%d requests to the relay", n)
	}
	if job.TotalRepos != 1 || int(job.Tally.Records) != len(r.world.TruthOf(did)) || len(r.served("")) != len(r.world.TruthOf(did)) {
		t.Errorf("%+v, want the %d records of one repo", job, len(r.world.TruthOf(did)))
	}
}

func TestRerunOnUnchangedDataChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 5, Repos: 80, LargeRepos: 1})
	first := r.complete(jobs.Request{Collection: status})
	before, rows := r.seq(), r.rows()
	second := r.complete(jobs.Request{Collection: status})
	if after := r.seq(); after != before {
		t.Errorf("the highest seq went from %d to %d", before, after)
	}
	if again := r.rows(); !slices.Equal(rows, again) {
		t.Errorf("record rows changed")
	}
	if first.TotalRepos != second.TotalRepos || first.Tally.Records != second.Tally.Records || second.Tally.Unchanged() != second.Tally.Records {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

func (r *rig) seq() uint64 {
	r.t.Helper()
	st, err := r.store.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st.Seq
}

// rows are all records with everything that is stored of them.
func (r *rig) rows() (rows []string) {
	r.t.Helper()
	err := r.store.Index.Export(r.t.Context(), index.Filter{}, func(uint64) error { return nil }, func(rec *index.Record) error {
		rows = append(rows, strings.Join([]string{
			rec.URI().String(), rec.Rev.String(), rec.IndexedAt.String(), strconv.FormatUint(rec.Seq, 10), rec.Body.CID.String(), string(rec.Body.Data), rec.Source.String(),
		}, " "))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

func TestRerunFollowsEveryKindOfChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 6, Repos: 120, Hosts: 4})
	r.complete(jobs.Request{Collection: status})
	var with []syntax.DID // repos that have the collection
	for _, repo := range r.world.Repos() {
		if len(r.world.TruthOf(repo.DID, status)) > 0 {
			with = append(with, repo.DID)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	value := butterfly()
	_, err := r.world.Create(with[0], status, "", value)
	must(err)
	for _, rec := range r.world.TruthOf(with[1], status) {
		_, err := r.world.Update(with[1], status, rec.RKey, value)
		must(err)
	}
	for _, rec := range r.world.TruthOf(with[2], status) {
		must(r.world.Delete(with[2], status, rec.RKey))
		break
	}
	must(r.world.Deactivate(with[3]))
	must(r.world.TakeDown(with[4]))
	must(r.world.Suspend(with[5]))
	must(r.world.DeleteAccount(with[6]))
	must(r.world.Tombstone(with[7]))
	_, err = r.world.Empty(with[8]) // and the relay names it no more
	must(err)
	r.world.Forget(with[8])
	home, err := r.world.Repo(with[9])
	must(err)
	for _, url := range r.world.HostURLs() {
		if url != home.Host {
			must(r.world.Move(with[9], url))
			break
		}
	}
	_, err = r.world.Create(with[9], status, "", value)
	must(err)
	fresh, err := r.world.AddRepo(r.world.HostURLs()[0])
	must(err)
	_, err = r.world.Create(fresh, status, "", value)
	must(err)

	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	for reason, n := range map[string]int64{"deactivated": 1, "taken_down": 1, "suspended": 1, "tombstoned": 1, "empty": 1} {
		if job.Reasons[reason] != n {
			t.Errorf("%d repos %s, want %d: %v", job.Reasons[reason], reason, n, job.Reasons)
		}
	}
	if job.Unavailable != 5 || job.Failed != 0 || job.Error != "" {
		t.Errorf("%d unavailable, %d failed, error %q", job.Unavailable, job.Failed, job.Error)
	}

	must(r.world.Activate(with[3]))
	before := r.seq()
	r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if r.seq() != before {
		t.Error("a reactivated account was written anew")
	}
}

func TestTwoJobsOverChangingReposEndExact(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 7, Repos: 150, Hosts: 3}, options{config: backfill.Config{MaxJobs: 2}})
	// The repos change whenever one of them is read.
	rng := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	changes := 0
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords {
			mu.Lock()
			defer mu.Unlock()
			changes++
			if _, err := r.world.Mutate(rng); err != nil {
				t.Errorf("mutate: %v", err)
			}
		}
		return sandbox.Fault{}
	})
	one, two := r.create(jobs.Request{Collection: status}), r.create(jobs.Request{})
	one, two = r.finish(one), r.finish(two)
	r.world.SetFault(nil)
	if changes < 100 {
		t.Errorf("the world changed only %d times", changes)
	}
	for _, job := range []jobs.Job{one, two} {
		if job.Status != api.StatusCompleted || job.Failed > 0 {
			t.Errorf("job ended %s: %s", job.Status, job.Error)
		}
	}
	// The network rests now, and two more jobs race over it.
	one, two = r.create(jobs.Request{Collection: status}), r.create(jobs.Request{})
	r.finish(one)
	r.finish(two)
	r.wantTruth("")
}

func TestRelayFailureFailsTheJob(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode sandbox.RelayMode
		want []string
	}{
		"down":                     {sandbox.RelayDown, []string{"--relay", "reachable"}},
		"no listReposByCollection": {sandbox.RelayNoCollections, []string{"does not offer", "--relay"}},
		"not found":                {sandbox.RelayNotFound, []string{"does not offer", "--relay"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 8, Repos: 10})
			r.world.SetRelay(c.mode)
			job := r.finish(r.create(jobs.Request{Collection: status}))
			if job.Status != api.StatusFailed || job.Stage != api.StageFailed || job.CompletedAt.IsZero() {
				t.Errorf("job: %+v", job)
			}
			for _, want := range append(c.want, r.world.RelayURL(), "appview backfill retry "+job.ID.String()) {
				if !strings.Contains(job.Error, want) {
					t.Errorf("error %q does not name %q", job.Error, want)
				}
			}
		})
	}
}

func TestRelayThatFailsMidwayLosesNothingFound(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{
		Seed: 9, Repos: 1500, Hosts: 2,
		Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 1, MaxRecords: 1}},
	}
	r := newRig(t, world)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartRelay && q.Cursor != "" {
			return sandbox.Fault{Status: http.StatusForbidden, Body: []byte(`{"error":"Forbidden"}`)}
		}
		return sandbox.Fault{}
	})
	job := r.finish(r.create(jobs.Request{Collection: status}))
	if job.Status != api.StatusFailed || job.TotalRepos != 1000 || job.Processed != 1000 || job.Tally.Records != 1000 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("status"); n == 0 {
		t.Error("no fault was injected")
	}
}

func TestCancelStopsAtOnceWhateverHostsDo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 10, Repos: 100, Hosts: 2})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Method == listRecords}
	})
	job := r.create(jobs.Request{Collection: status})
	job = r.await(job, "fetching", func(j jobs.Job) bool { return j.Stage == api.StageFetching && r.world.Faults("hang") > 0 })
	asked := time.Now()
	got, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling)
	if err != nil || got.Status != api.StatusCancelling {
		t.Fatalf("cancel: %+v, %v", got, err)
	}
	job = r.finish(job)
	if took := time.Since(asked); took > time.Second {
		t.Errorf("cancelled after %s", took)
	}
	if job.Status != api.StatusCancelled || job.Stage != api.StageCancelled || job.Error != "cancelled by request" {
		t.Errorf("job: %+v", job)
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); !errors.Is(err, jobs.ErrMove) {
		t.Errorf("second cancel: %v", err)
	}
	if _, err := r.b.Move(t.Context(), uuid.New(), api.StatusCancelling); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("cancel of no job: %v", err)
	}
}

func TestJobsWaitForTheirTurnAndNamedOnesDoNot(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 11, Repos: 20}, options{config: backfill.Config{MaxJobs: 1}})
	var held sync.Map
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		_, let := held.Load(q.DID)
		return sandbox.Fault{Hang: q.Method == repoStatus && !let}
	})
	named := r.world.Repos()[3].DID
	held.Store(string(named), true)
	first := r.create(jobs.Request{Collection: status})
	r.await(first, "started", func(j jobs.Job) bool { return !j.StartedAt.IsZero() })
	second := r.create(jobs.Request{Collection: notes})
	third := r.complete(jobs.Request{DID: named})
	if third.StartedAt.IsZero() {
		t.Errorf("named job: %+v", third)
	}
	second = r.job(second)
	if second.Stage != api.StagePending || !second.StartedAt.IsZero() || second.Status != api.StatusRunning {
		t.Errorf("waiting job: %+v", second)
	}
	if waiting, _, _ := r.b.Progress(second); waiting != "queue" {
		t.Errorf("waiting job waits for %q", waiting)
	}
	// A job in the queue can be cancelled too.
	if _, err := r.b.Move(t.Context(), second.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	if got := r.finish(second); got.Status != api.StatusCancelled {
		t.Errorf("cancelled in the queue: %+v", got)
	}
}

func TestFailuresAreRetriedAndThenShown(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 12, Repos: 40, Hosts: 4, Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 1, MaxRecords: 3}}})
	repos := r.world.Repos()
	sick, dead := repos[0].DID, repos[1].DID
	var mu sync.Mutex
	failed := 0
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case q.Method != listRecords:
		case q.DID == string(sick) && failed < 3:
			failed++
			return sandbox.Fault{Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError","message":"sick"}`)}
		case q.DID == string(dead):
			return sandbox.Fault{Name: "cut", Cut: true, CutAfter: 10}
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	if failed != 3 {
		t.Errorf("the sick repo failed %d times, want 3", failed)
	}
	if n := r.world.Faults("cut"); n != 5 {
		t.Errorf("the dead repo was tried %d times, want 5", n)
	}
	if job.Failed != 1 || job.Reasons["cut_body"] != 1 || job.Error != "1 of 40 repos could not be read: 1 cut_body" {
		t.Errorf("%d failed, %v, error %q", job.Failed, job.Reasons, job.Error)
	}
}

func TestRejectedRecordHidesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 13, Repos: 6, Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 5, MaxRecords: 5}}})
	liar := r.world.Repos()[0].DID
	var bad string
	for uri := range r.world.TruthOf(liar, status) {
		bad = uri
		break
	}
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method != listRecords || q.DID != string(liar) {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "lie", Rewrite: func(a sandbox.Answer) sandbox.Answer {
			before, after, ok := strings.Cut(string(a.Body), `"uri":"`+bad+`"`)
			if ok {
				a.Body = []byte(before + `"uri":"` + bad + `"` + strings.Replace(after, `"status":"`, `"status":"lie `, 1))
			}
			return a
		}}
	})
	job := r.complete(jobs.Request{Collection: status})
	if r.world.Faults("lie") == 0 {
		t.Fatal("no fault was injected")
	}
	if job.Tally.Rejected != 1 || job.Tally.Records != 29 || job.Reasons["rejected"] != 1 || job.Failed != 1 {
		t.Errorf("job: %+v", job)
	}
}

func TestDeadHostIsGivenUpAndHoldsUpNobody(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	o := options{}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = 20*time.Millisecond, 50*time.Millisecond
	r := newRigWith(t, sandbox.Config{Seed: 14, Repos: 200, Hosts: 4, Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 1, MaxRecords: 2}}}, o)
	dead := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Host != dead {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "dead", Status: http.StatusBadGateway, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<html>Bad Gateway</html>")}
	})
	job := r.complete(jobs.Request{Collection: status})
	if job.Failed != 50 || job.Processed != 200 || job.Reasons["exact"] != 150 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("dead"); n == 0 || n > 60 {
		t.Errorf("%d requests to the dead host for 50 repos", n)
	}
}

//nolint:paralleltest // it looks at every goroutine of the process
func TestRunLeavesNoGoroutine(t *testing.T) {
	r := newRig(t, sandbox.Config{Seed: 15, Repos: 50})
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "fetching", func(j jobs.Job) bool { return j.Stage == api.StageFetching })
	r.stop()
	r.net.Close()
	deadline := time.After(patience)
	for {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "appview/backfill.(*") && !strings.Contains(stacks, "appview/internal/network.(*") {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("goroutines left after Run returned:\n%s", stacks)
		default:
			runtime.Gosched()
		}
	}
}
