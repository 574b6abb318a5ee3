package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

func none(jobs.Job) string { return "" }

func TestJobGoesThroughItsStages(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := &bench{t: t, s: s}
	job, err := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{Collection: note}, []syntax.NSID{note})
	if err != nil {
		t.Fatal(err)
	}
	b.job = job
	want := func(stage api.Stage) {
		t.Helper()
		if got := b.row().Stage; got != stage {
			t.Errorf("stage is %s, want %s", got, stage)
		}
	}
	want(api.StagePending)
	if _, err := s.Jobs.StartJob(t.Context(), job.Seq); err != nil {
		t.Fatal(err)
	}
	want(api.StageDiscovering)
	if _, err := s.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "l", DIDs: []syntax.DID{alice, bob, alice}}); err != nil {
		t.Fatal(err)
	}
	b.must(func(done func(error)) error { return s.Work.Rehost(t.Context(), job.Seq, alice, "", host, done) })
	want(api.StageDiscovering)
	if err := s.Work.EndDiscovery(t.Context(), job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	want(api.StageResolving)
	b.must(func(done func(error)) error { return s.Work.Rehost(t.Context(), job.Seq, bob, "", host, done) })
	want(api.StageFetching)
	for _, did := range []syntax.DID{alice, bob} {
		if job, err := s.Jobs.FinishJob(t.Context(), job.Seq, none); err != nil || job.Status != api.StatusRunning {
			t.Errorf("a job that owes work became %s, %v", job.Status, err)
		}
		b.must(func(done func(error)) error {
			return s.Work.Settle(t.Context(), job.Seq, settlement(did, rev(1), segment(note)), done)
		})
	}
	if _, err := s.Jobs.FinishJob(t.Context(), job.Seq, none); err != nil {
		t.Fatal(err)
	}
	want(api.StageCompleted)
	got := b.row()
	if got.Status != api.StatusCompleted || got.TotalRepos != 2 || got.Processed != 2 || got.CompletedAt.IsZero() {
		t.Errorf("finished job: %+v", got)
	}
}

func TestJobSettlesEachRepoOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	err := b.try(func(done func(error)) error {
		return b.s.Work.Settle(t.Context(), b.job.Seq, settlement(alice, rev(1), segment(note)), done)
	})
	if !errors.Is(err, jobs.ErrStale) {
		t.Errorf("second settlement: %v, want ErrStale", err)
	}
	if _, err := b.s.Work.Discover(t.Context(), b.job.Seq, jobs.Discovery{Listing: "l", DIDs: []syntax.DID{alice}}); err != nil {
		t.Fatal(err)
	}
	if got := b.row(); got.TotalRepos != 1 || got.Processed != 1 || got.Tally.Records != 1 {
		t.Errorf("counted twice: %+v", got)
	}
}

func TestCancelIsGivenToOneOfTwo(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.s.Jobs.MoveJob(t.Context(), b.job.ID, api.StatusCancelling) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("cancelled %v and %v, want exactly one", errs[0], errs[1])
	}
	if err := errors.Join(errs...); !errors.Is(err, jobs.ErrMove) {
		t.Errorf("the other got %v, want ErrMove", err)
	}
	if got := b.row().Status; got != api.StatusCancelling {
		t.Errorf("status is %s", got)
	}
	// A result that arrives late still counts, until the job is final.
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	job, err := b.s.Jobs.FinishJob(t.Context(), b.job.Seq, none)
	if err != nil || job.Status != api.StatusCancelled || job.Error != "cancelled by request" {
		t.Errorf("finished as %+v, %v", job, err)
	}
	if _, err := b.s.Work.Discover(t.Context(), b.job.Seq, jobs.Discovery{DIDs: []syntax.DID{bob}}); !errors.Is(err, jobs.ErrStale) {
		t.Errorf("work for a final job: %v, want ErrStale", err)
	}
	if _, err := b.s.Jobs.MoveJob(t.Context(), uuid.New(), api.StatusCancelling); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("cancel of no job: %v, want ErrNotFound", err)
	}
}

func TestJobThatCouldNotDiscoverFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	if err := b.s.Work.EndDiscovery(t.Context(), b.job.Seq, "the relay is down"); err != nil {
		t.Fatal(err)
	}
	if job, err := b.s.Jobs.FinishJob(t.Context(), b.job.Seq, none); err != nil || job.Status != api.StatusRunning {
		t.Errorf("failed before what was found is settled: %s, %v", job.Status, err)
	}
	b.must(func(done func(error)) error {
		return b.s.Work.Settle(t.Context(), b.job.Seq, settlement(alice, rev(1), segment(note)), done)
	})
	if job, err := b.s.Jobs.FinishJob(t.Context(), b.job.Seq, none); err != nil || job.Status != api.StatusFailed || job.Error != "the relay is down" {
		t.Errorf("finished as %+v, %v", job, err)
	}
}

func TestReposThatTheIndexHoldsAreDiscovered(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.mustRead(bob, rev(1), segment(other, listed(t, "b", "1")))
	for _, c := range []struct {
		targets []syntax.NSID
		want    int64
	}{{nil, 2}, {[]syntax.NSID{note}, 1}, {[]syntax.NSID{"com.example.none"}, 0}} {
		job := newJob(t, b.s, c.targets)
		for done := false; !done; {
			var err error
			if done, err = b.s.Work.DiscoverHeld(t.Context(), job.Seq); err != nil {
				t.Fatal(err)
			}
		}
		got, err := b.s.Jobs.Job(t.Context(), job.ID)
		if err != nil || got.TotalRepos != c.want {
			t.Errorf("targets %v: %d repos, %v; want %d", c.targets, got.TotalRepos, err, c.want)
		}
	}
}

func TestHostsQueueIsGivenUpInSteps(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	b.owe(bob)
	v := jobs.Verdict{Class: jobs.ClassFailed, Reason: "host_down"}
	n, err := b.s.Work.SettleHost(t.Context(), b.job.Seq, host, v)
	if err != nil || n != 2 {
		t.Fatalf("settled %d, %v; want 2", n, err)
	}
	if n, err = b.s.Work.SettleHost(t.Context(), b.job.Seq, host, v); err != nil || n != 0 {
		t.Errorf("settled %d more, %v", n, err)
	}
	if got := b.row(); got.Failed != 2 || got.Processed != 2 || got.Reasons["host_down"] != 2 {
		t.Errorf("%+v", got)
	}
}

func TestMovedRepoStartsAnewAtItsHost(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	at := jobs.Position{First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "b"}}}
	read := index.Reading{Host: host, Rev: rev(1), Segments: []index.Segment{{Collection: note, Records: []index.Listed{listed(t, "b", "1")}}}}
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	b.must(func(done func(error)) error {
		return b.s.Work.Rehost(t.Context(), b.job.Seq, alice, host, "https://new.example.com", done)
	})
	owed, err := b.s.Work.Owed(t.Context(), b.job.Seq, "https://new.example.com", "", 10)
	if err != nil || len(owed) != 1 || owed[0].Position != nil || !owed[0].Moved {
		t.Errorf("at the new host: %+v, %v", owed, err)
	}
	hosts, err := b.s.Work.OwedHosts(t.Context(), b.job.Seq)
	if err != nil || len(hosts) != 1 || hosts[0] != "https://new.example.com" {
		t.Errorf("hosts: %v, %v", hosts, err)
	}
}

func TestEverythingSurvivesReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	if err := s.Collections.Track(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	if err := s.Admin.PutAPIKey(t.Context(), "hv_secret", admin.APIKey{ID: uuid.New(), Name: "k", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	before := b.row()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = storetest.OpenPath(t, path)
	after := b.row()
	if before.Tally != after.Tally || before.Processed != after.Processed || !before.CreatedAt.Equal(after.CreatedAt) {
		t.Errorf("job was %+v, is %+v", before, after)
	}
	wantRecords(t, b.s, 1)
	if list, err := b.s.Collections.Tracked(t.Context()); err != nil || len(list) != 1 || list[0] != note {
		t.Errorf("tracked: %v, %v", list, err)
	}
	if k, err := b.s.Admin.APIKey(t.Context(), "hv_secret"); err != nil || k.Name != "k" {
		t.Errorf("key: %+v, %v", k, err)
	}
	if _, err := b.s.Admin.APIKey(t.Context(), "hv_other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
}

func TestPruneForgetsOldJobsAndDeletions(t *testing.T) {
	t.Parallel()
	var offset atomic.Int64
	s := storetest.OpenConfig(t, store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: 20 * time.Millisecond,
		Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) },
	})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	b.again()
	b.mustRead(alice, rev(2), segment(note, listed(t, "a", "1")))
	if err := s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Jobs.FinishJob(t.Context(), b.job.Seq, none); err != nil {
		t.Fatal(err)
	}
	offset.Store(int64(31 * 24 * time.Hour))
	var wg sync.WaitGroup
	wg.Go(func() { newJob(t, s, nil) }) // may share a group with the pruning
	for done := false; !done; {
		var err error
		if done, err = s.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if _, err := s.Work.Owed(t.Context(), b.job.Seq, host, "", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("work of a job that ended a month ago: %v, want ErrNotFound", err)
	}
	if got := b.row(); got.Status != api.StatusCompleted {
		t.Errorf("the job itself is %+v", got)
	}
	wantRecords(t, s, 1)
}

// TestHeldReposAreAllDiscovered has more repos than one step looks at, past the
// numbers whose keys are no text.
func TestHeldReposAreAllDiscovered(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	const n = 42_000
	dids := make([]syntax.DID, n)
	for i := range dids {
		dids[i] = syntax.DID(fmt.Sprintf("did:plc:%024d", i))
	}
	if _, err := b.s.Work.Discover(t.Context(), b.job.Seq, jobs.Discovery{Listing: "l", DIDs: dids}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	rec := listed(t, "a", "1")
	for _, did := range dids {
		s := settlement(did, rev(1), segment(note, rec))
		s.Reading.Host = ""
		wg.Add(1)
		if err := b.s.Work.Settle(t.Context(), b.job.Seq, s, func(err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	b.again()
	for done := false; !done; {
		var err error
		if done, err = b.s.Work.DiscoverHeld(t.Context(), b.job.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.row().TotalRepos; got != n {
		t.Errorf("found %d of %d repos", got, n)
	}
}
