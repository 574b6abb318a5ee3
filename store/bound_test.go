package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// five is a collection of five records, the highest key first.
func five(tb testing.TB) index.Segment {
	tb.Helper()
	return segment(note, listed(tb, "e", "5"), listed(tb, "d", "4"), listed(tb, "c", "3"), listed(tb, "b", "2"), listed(tb, "a", "1"))
}

// saved is a step of a listing that holds only the record of a key.
func saved(tb testing.TB, at syntax.TID, last, text string) (index.Reading, jobs.Position) {
	tb.Helper()
	seg := index.Segment{Collection: note, Records: []index.Listed{listed(tb, last, text)}}
	read := jobs.ReadUpTo{Cursor: last, Last: syntax.RecordKey(last)}
	return index.Reading{Host: host, Rev: at, Source: index.SourceListRecords, Segments: []index.Segment{seg}},
		jobs.Position{First: at, Read: map[syntax.NSID]jobs.ReadUpTo{note: read}}
}

func TestRefusedStepWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	at := jobs.Position{First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Done: true}}}
	read := index.Reading{Host: host, Rev: rev(1), Segments: []index.Segment{five(t), segment(other)}}
	if err := b.s.Index.Deny(t.Context(), string(alice), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); !errors.Is(err, index.ErrDenied) {
		t.Errorf("a step of a repo that is denied: %v", err)
	}
	if st := stats(t, b.s); st.Repos != 0 || st.Seq != 0 {
		t.Errorf("a refused step left %+v", st)
	}
	wantRecords(t, b.s, 0)
}

func TestGuardIsRememberedFromOneTransactionToTheNext(t *testing.T) {
	t.Parallel()
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Hooks: store.Hooks{Step: 1}})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), five(t))
	b.again()
	large := b.job
	b.owe(alice)
	read, at := saved(t, rev(2), "a", "1") // b, c, d and e are not listed
	if _, err := s.Work.Save(t.Context(), large.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.mustRead(alice, rev(3), five(t)) // and there again
	b.job = large
	last := settlement(alice, rev(4), index.Segment{Collection: note})
	last.Floor, last.Exact = at.First, true
	b.must(func(done func(error)) error { return s.Work.Settle(t.Context(), large.Seq, last, done) })
	if got := b.row().Reasons; got[jobs.ReasonChangedDuringRead] != 1 {
		t.Errorf("settled with %v, although the index kept what is newer", got)
	}
	wantRecords(t, s, 5)
}

// TestStepsOfAnAccountThatEndedAreReadAnew denies an account of which some is read, and
// takes that back: what was read is gone, and may not pass for a part of the repo.
func TestStepsOfAnAccountThatEndedAreReadAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	read, at := saved(t, rev(1), "e", "5")
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.s.Index.Deny(t.Context(), string(alice), ""), b.s.Index.Allow(t.Context(), string(alice))); err != nil {
		t.Fatal(err)
	}
	next, further := saved(t, rev(1), "d", "4")
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, next, further); !errors.Is(err, index.ErrUndone) {
		t.Errorf("a step behind those that are gone: %v", err)
	}
	last := settlement(alice, rev(1), index.Segment{Collection: note})
	if err := b.settle(last); !errors.Is(err, index.ErrUndone) {
		t.Errorf("the end behind those that are gone: %v", err)
	}
	wantRecords(t, b.s, 0)
	anew := jobs.Position{First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{}}
	if err := b.s.Work.Restart(t.Context(), b.job.Seq, host, alice, anew); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second goes on behind the first again
		if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
			t.Fatal(err)
		}
	}
	b.mustSettle(last)
	wantRecords(t, b.s, 1)
}

// TestAccountThatComesBackWhileItIsDeleted has one job find that an account is deleted,
// which takes several transactions, and another one, just behind it, that it is back.
func TestAccountThatComesBackWhileItIsDeleted(t *testing.T) {
	t.Parallel()
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Hooks: store.Hooks{Step: 1}})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), five(t))
	b.again()
	b.owe(alice)
	first := b.job
	b.again()
	b.owe(alice)
	ended := make(chan error, 1)
	gone := jobs.Settlement{
		DID: alice, Reading: index.Reading{Host: host}, Account: "deleted", Purge: true,
		Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deleted"},
	}
	if err := s.Work.Settle(t.Context(), first.Seq, gone, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	if err := b.settle(settlement(alice, rev(2), five(t))); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil && !errors.Is(err, index.ErrUndone) {
		t.Error(err)
	}
	wantRecords(t, s, 5)
	if repo, err := s.Index.Repo(t.Context(), alice); err != nil || !repo.Active() {
		t.Errorf("%+v, %v", repo, err)
	}
}

// TestDeletionsOfACutSettlementCountOnce ends the process between the transactions
// of a settlement. The next one finds the repo changed, and reads it in steps.
func TestDeletionsOfACutSettlementCountOnce(t *testing.T) {
	t.Parallel()
	path, crash := filepath.Join(t.TempDir(), "appview.db"), errors.New("crash")
	var settling bool
	cfg := store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{Step: 1, AfterCommit: func() error {
		if settling {
			return crash
		}
		return nil
	}}}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	b.mustRead(alice, rev(1), five(t))
	b.again()
	b.owe(alice)
	settling = true
	err = b.try(func(done func(error)) error {
		return s.Work.Settle(t.Context(), b.job.Seq, settlement(alice, rev(2), segment(note, listed(t, "a", "1"))), done)
	})
	if !errors.Is(err, crash) {
		t.Fatalf("got %v, want the crash", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = storetest.OpenPath(t, path)
	wantRecords(t, b.s, 4)
	read, at := saved(t, rev(3), "b", "new")
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	last := settlement(alice, rev(3), index.Segment{Collection: note, Records: []index.Listed{listed(t, "a", "1")}})
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), b.job.Seq, last, done) })
	if got, want := b.row().Tally, (index.Tally{Records: 2, Created: 1, Deleted: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
