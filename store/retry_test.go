package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// crowd are so many DIDs, in order.
func crowd(n int) (dids []syntax.DID) {
	for i := range n {
		dids = append(dids, syntax.DID(fmt.Sprintf("did:plc:%024d", i)))
	}
	return dids
}

// giveUp has a job find repos and settle each of them as failed.
func giveUp(t *testing.T, s *store.Store, job jobs.Job, dids []syntax.DID) {
	t.Helper()
	if _, err := s.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "test", DIDs: dids, Cursor: jobs.Cursor{Done: true}}); err != nil {
		t.Fatal(err)
	}
	for left := true; left; {
		n, err := s.Work.SettleHost(t.Context(), job.Seq, "", jobs.Verdict{Class: jobs.ClassFailed, Reason: "timeout"})
		if err != nil {
			t.Fatal(err)
		}
		left = n > 0
	}
}

// retried makes a job that carries on another.
func retried(t *testing.T, s *store.Store, of jobs.Job) jobs.Job {
	t.Helper()
	job, err := s.Jobs.RetryJob(t.Context(), of.ID, uuid.New())
	if err != nil {
		t.Fatalf("retry job %d: %v", of.Seq, err)
	}
	return job
}

// stop cancels a job.
func stop(t *testing.T, s *store.Store, job jobs.Job) {
	t.Helper()
	_, err := s.Jobs.MoveJob(t.Context(), job.ID, api.StatusCancelling)
	if err == nil {
		_, err = s.Jobs.FinishJob(t.Context(), job.Seq, none)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// takeOver has a job find what those that it carries on have left, in no more steps
// than given (0: all), and returns what it owes then.
func takeOver(tb testing.TB, s *store.Store, job jobs.Job, steps int) (dids []syntax.DID) {
	tb.Helper()
	for n, done := 0, false; !done && (steps == 0 || n < steps); n++ {
		var err error
		if done, err = s.Work.DiscoverRetry(tb.Context(), job.Seq); err != nil {
			tb.Fatalf("take over by job %d: %v", job.Seq, err)
		}
	}
	list, err := s.Work.Owed(tb.Context(), job.Seq, "", "", 1000)
	if err != nil {
		tb.Fatal(err)
	}
	for _, o := range list {
		dids = append(dids, o.DID)
	}
	return dids
}

// TestRetryOfARetryThatHadNotBegun carries on jobs that were stopped before they had
// looked at all that they carried on themselves: what none of them has come to is not
// forgotten.
func TestRetryOfARetryThatHadNotBegun(t *testing.T) {
	t.Parallel()
	const step = 3
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Hooks: store.Hooks{Step: step}})
	first := newJob(t, s, nil)
	all := crowd(10)
	giveUp(t, s, first, all)
	if err := s.Work.EndDiscovery(t.Context(), first.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Jobs.FinishJob(t.Context(), first.Seq, none); err != nil || got.Status != api.StatusCompleted {
		t.Fatalf("%+v, %v", got, err)
	}
	second := retried(t, s, first) // waited for its turn
	stop(t, s, second)
	third := retried(t, s, second) // came to some
	if got := takeOver(t, s, third, 2); len(got) == 0 || len(got) == len(all) {
		t.Fatalf("%d repos after two steps: this tests nothing", len(got))
	}
	stop(t, s, third)
	fourth := retried(t, s, third) // waited, too
	stop(t, s, fourth)
	fifth := retried(t, s, fourth)
	if got := takeOver(t, s, fifth, 0); !slices.Equal(got, all) {
		t.Errorf("%d of %d repos are carried on: %v", len(got), len(all), got)
	}
}

// TestWhatAJobCarriesOnIsKept prunes when a job was made to carry on one that ended
// long ago, and has not begun.
func TestWhatAJobCarriesOnIsKept(t *testing.T) {
	t.Parallel()
	const day = 24
	w := newStoreWorld(t)
	first := w.begin(jobs.Request{Collection: note}, 0, 0)
	all := crowd(500) // so that its buckets have pages of their own
	giveUp(t, w.s, first, all)
	w.end(first, 1, "")
	w.at(20 * day)
	second := retried(t, w.s, first)
	stop(t, w.s, second)
	w.at(27 * day)
	third := retried(t, w.s, second)
	w.at(40 * day)
	w.prune()
	if got := takeOver(t, w.s, third, 0); !slices.Equal(got, all) {
		t.Errorf("%d of %d repos are carried on: %v", len(got), len(all), got)
	}
	if err := w.s.Work.EndDiscovery(t.Context(), third.Seq, ""); err != nil { // it knows all
		t.Fatal(err)
	}
	w.prune()
	if _, err := w.s.Work.Owed(t.Context(), first.Seq, host, "", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("work of a job that nobody needs any more: %v, want ErrNotFound", err)
	}
}

// settleAs settles what the bench's job owes of the repos, each in its class; with none
// it stays owed. Ends of those that are done are assumed.
func (b *bench) settleAs(dids []syntax.DID, classes ...string) {
	b.t.Helper()
	for i, did := range dids {
		if classes[i] == "" {
			continue
		}
		s := assuming(did, rev(1), segment(note, listed(b.t, "c", "1")))
		if classes[i] != jobs.ClassDone {
			s = jobs.Settlement{DID: did, Reading: index.Reading{Host: host}}
		}
		s.Verdict = jobs.Verdict{Class: classes[i], Reason: "test"}
		b.must(func(done func(error)) error { return b.s.Work.Rehost(b.t.Context(), b.job.Seq, did, "", host, done) })
		b.mustSettle(s)
	}
}

// discoverAll has the bench's job look at all that may name a repo to it, and returns
// what it owes then.
func (b *bench) discoverAll(listed []syntax.DID) []syntax.DID {
	b.t.Helper()
	takeOver(b.t, b.s, b.job, 0)
	if _, err := b.s.Work.Discover(b.t.Context(), b.job.Seq, jobs.Discovery{Listing: "test", DIDs: listed, Cursor: jobs.Cursor{Done: true}}); err != nil {
		b.t.Fatal(err)
	}
	for done := false; !done; {
		var err error
		if done, err = b.s.Work.DiscoverHeld(b.t.Context(), b.job.Seq); err != nil {
			b.t.Fatal(err)
		}
	}
	return takeOver(b.t, b.s, b.job, 0)
}

// TestRetryDoesNotReadAgainWhatWasDone carries on a job that carries on another, with
// all repos in the index and named by the listing once more.
func TestRetryDoesNotReadAgainWhatWasDone(t *testing.T) {
	t.Parallel()
	const done, failed, gone, owed = jobs.ClassDone, jobs.ClassFailed, jobs.ClassUnavailable, ""
	all := crowd(5)
	for name, c := range map[string]struct {
		second []string // what becomes of those that are owed: of the third to the last
		doubt  bool     // ends turn out to be none, when both jobs are over
		want   []int    // what the third job reads
	}{
		"done in the second":       {second: []string{done, done, done}},
		"failed once more":         {second: []string{failed, gone, done}, want: []int{2, 3}},
		"not come to":              {second: []string{owed, done, owed}, want: []int{2, 4}},
		"unavailable":              {second: []string{gone, gone, gone}, want: []int{2, 3, 4}},
		"ends that were none":      {second: []string{done, gone, done}, doubt: true, want: []int{0, 1, 2, 3, 4}},
		"ends that were none, too": {second: []string{done, done, failed}, doubt: true, want: []int{0, 1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			for _, did := range all { // some other job
				b.mustRead(did, rev(1), segment(note, listed(t, "c", "1")))
			}
			b.again()
			if got := b.discoverAll(all); !slices.Equal(got, all) {
				t.Fatalf("the first job owes %v", got)
			}
			b.settleAs(all, done, done, failed, gone, owed)
			stop(t, b.s, b.job)
			b.job = retried(t, b.s, b.job)
			if got := b.discoverAll(all); !slices.Equal(got, all[2:]) {
				t.Fatalf("the second job owes %v", got)
			}
			b.settleAs(all[2:], c.second...)
			stop(t, b.s, b.job)
			second := b.job
			if c.doubt {
				b.again()
				b.distrust(bob, rev(1))
				b.job = second
			}
			b.job = retried(t, b.s, b.job)
			var want []syntax.DID
			for _, i := range c.want {
				want = append(want, all[i])
			}
			if got := b.discoverAll(all); !slices.Equal(got, want) {
				t.Errorf("the third job owes %v, want %v", got, want)
			}
			if got := b.row(); got.TotalRepos != int64(len(want)) || got.Processed != 0 {
				t.Errorf("the third job: %+v", got)
			}
		})
	}
}

// TestRetryReadsDoubtedReposOfAnEarlierJob carries on a job that has left nothing, whose
// own forerunner has taken a short page for the end that was none.
func TestRetryReadsDoubtedReposOfAnEarlierJob(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	all := crowd(3)
	complete := func() {
		t.Helper()
		if err := b.s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
			t.Fatal(err)
		}
		if got := b.finish(); got.Status != api.StatusCompleted {
			t.Fatalf("the job is %s", got.Status)
		}
	}
	b.discoverAll(all)
	b.settleAs(all, jobs.ClassDone, jobs.ClassFailed, jobs.ClassDone)
	complete()
	b.job = retried(t, b.s, b.job)
	if got := b.discoverAll(nil); !slices.Equal(got, all[1:2]) {
		t.Fatalf("the second job owes %v", got)
	}
	b.settleAs(all[1:2], jobs.ClassUnavailable)
	complete()
	second := b.job
	if _, err := b.s.Jobs.RetryJob(t.Context(), second.ID, uuid.New()); !errors.Is(err, jobs.ErrNothingLeft) {
		t.Errorf("retry while all is well: %v, want ErrNothingLeft", err)
	}
	b.again()
	b.distrust(bob, rev(1))
	b.job = retried(t, b.s, second)
	if got := takeOver(t, b.s, b.job, 0); !slices.Equal(got, []syntax.DID{all[0], all[2]}) {
		t.Fatalf("the third job owes %v", got)
	}
	for _, did := range []syntax.DID{all[0], all[2]} {
		b.must(func(done func(error)) error { return b.s.Work.Rehost(t.Context(), b.job.Seq, did, "", host, done) })
		b.mustSettle(settlement(did, rev(1), segment(note, listed(t, "c", "1"))))
	}
	complete()
	if _, err := b.s.Jobs.RetryJob(t.Context(), b.job.ID, uuid.New()); !errors.Is(err, jobs.ErrNothingLeft) {
		t.Errorf("retry when all is read anew: %v, want ErrNothingLeft", err)
	}
}
