package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store"
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
func giveUp(t *testing.T, s *store.Store, job store.Job, dids []syntax.DID) {
	t.Helper()
	if _, err := s.Discover(t.Context(), job.Seq, store.Discovery{Listing: "test", DIDs: dids, Cursor: store.Cursor{Done: true}}); err != nil {
		t.Fatal(err)
	}
	for left := true; left; {
		n, err := s.SettleHost(t.Context(), job.Seq, "", store.Verdict{Class: store.ClassFailed, Reason: "timeout"})
		if err != nil {
			t.Fatal(err)
		}
		left = n > 0
	}
}

// retried makes a job that carries on another.
func retried(t *testing.T, s *store.Store, of store.Job) store.Job {
	t.Helper()
	job, err := s.RetryJob(t.Context(), of.ID, uuid.New())
	if err != nil {
		t.Fatalf("retry job %d: %v", of.Seq, err)
	}
	return job
}

// stop cancels a job.
func stop(t *testing.T, s *store.Store, job store.Job) {
	t.Helper()
	_, err := s.MoveJob(t.Context(), job.ID, store.StatusCancelling)
	if err == nil {
		_, err = s.FinishJob(t.Context(), job.Seq, none)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// takeOver has a job find what those that it carries on have left, in no more steps
// than given (0: all), and returns what it owes then.
func takeOver(t *testing.T, s *store.Store, job store.Job, steps int) (dids []syntax.DID) {
	t.Helper()
	for n, done := 0, false; !done && (steps == 0 || n < steps); n++ {
		var err error
		if done, err = s.DiscoverRetry(t.Context(), job.Seq); err != nil {
			t.Fatalf("take over by job %d: %v", job.Seq, err)
		}
	}
	list, err := s.Owed(t.Context(), job.Seq, "", "", 1000)
	if err != nil {
		t.Fatal(err)
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
	if err := s.EndDiscovery(t.Context(), first.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := s.FinishJob(t.Context(), first.Seq, none); err != nil || got.Status != store.StatusCompleted {
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
	first := w.begin(store.Request{Collection: note}, 0, 0)
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
	w.prune() // the third knows all
	if _, err := w.s.Owed(t.Context(), first.Seq, host, "", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("work of a job that nobody needs any more: %v, want ErrNotFound", err)
	}
}
