package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/storetest"
)

// five is a collection of five records, the highest key first.
func five(tb testing.TB) store.Segment {
	tb.Helper()
	return segment(note, listed(tb, "e", "5"), listed(tb, "d", "4"), listed(tb, "c", "3"), listed(tb, "b", "2"), listed(tb, "a", "1"))
}

// saved is a step of a listing that holds only the record of a key.
func saved(tb testing.TB, at syntax.TID, last, text string) (store.Reading, store.Position) {
	tb.Helper()
	seg := store.Segment{Collection: note, Records: []store.Listed{listed(tb, last, text)}}
	read := store.ReadUpTo{Cursor: last, Last: syntax.RecordKey(last)}
	return store.Reading{Host: host, Rev: at, Source: store.SourceListRecords, Segments: []store.Segment{seg}},
		store.Position{First: at, Read: map[syntax.NSID]store.ReadUpTo{note: read}}
}

func TestRefusedStepWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	at := store.Position{First: rev(1), Read: map[syntax.NSID]store.ReadUpTo{note: {Done: true}}}
	read := store.Reading{Host: host, Rev: rev(1), Segments: []store.Segment{five(t), segment(other)}}
	if err := b.s.Deny(t.Context(), string(alice), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.Save(t.Context(), b.job.Seq, alice, read, at); !errors.Is(err, store.ErrDenied) {
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
	if _, err := s.Save(t.Context(), large.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.mustRead(alice, rev(3), five(t)) // and there again
	b.job = large
	last := settlement(alice, rev(4), store.Segment{Collection: note})
	last.Floor, last.Exact = at.First, true
	b.must(func(done func(error)) error { return s.Settle(t.Context(), large.Seq, last, done) })
	if got := b.row().Reasons; got[store.ReasonChangedDuringRead] != 1 {
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
	if _, err := b.s.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.s.Deny(t.Context(), string(alice), ""), b.s.Allow(t.Context(), string(alice))); err != nil {
		t.Fatal(err)
	}
	next, further := saved(t, rev(1), "d", "4")
	if _, err := b.s.Save(t.Context(), b.job.Seq, alice, next, further); !errors.Is(err, store.ErrUndone) {
		t.Errorf("a step behind those that are gone: %v", err)
	}
	last := settlement(alice, rev(1), store.Segment{Collection: note})
	if err := b.settle(last); !errors.Is(err, store.ErrUndone) {
		t.Errorf("the end behind those that are gone: %v", err)
	}
	wantRecords(t, b.s, 0)
	anew := store.Position{First: rev(1), Read: map[syntax.NSID]store.ReadUpTo{}}
	if err := b.s.Restart(t.Context(), b.job.Seq, host, alice, anew); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second goes on behind the first again
		if _, err := b.s.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
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
	gone := store.Settlement{
		DID: alice, Reading: store.Reading{Host: host}, Account: "deleted", Purge: true,
		Verdict: store.Verdict{Class: store.ClassUnavailable, Reason: "deleted"},
	}
	if err := s.Settle(t.Context(), first.Seq, gone, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	if err := b.settle(settlement(alice, rev(2), five(t))); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil && !errors.Is(err, store.ErrUndone) {
		t.Error(err)
	}
	wantRecords(t, s, 5)
	if repo, err := s.Repo(t.Context(), alice); err != nil || !repo.Active() {
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
		return s.Settle(t.Context(), b.job.Seq, settlement(alice, rev(2), segment(note, listed(t, "a", "1"))), done)
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
	if _, err := b.s.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	last := settlement(alice, rev(3), store.Segment{Collection: note, Records: []store.Listed{listed(t, "a", "1")}})
	b.must(func(done func(error)) error { return b.s.Settle(t.Context(), b.job.Seq, last, done) })
	if got, want := b.row().Tally, (store.Tally{Records: 2, Created: 1, Deleted: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
