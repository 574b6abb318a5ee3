package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"appview/store"
	"appview/store/storetest"
)

// TestJobDuringADeletionBringsTheRecordsBack has a job read a repo while a deletion
// has still to come to its records: what the job found must stay.
func TestJobDuringADeletionBringsTheRecordsBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	var commits atomic.Int64 // that are let through; below 0: all
	commits.Store(-1)
	crash := errors.New("power is gone")
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{BeforeCommit: func() error {
		if commits.Load() >= 0 && commits.Add(-1) < 0 {
			return crash
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "a", "1")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "a", "1")))
	commits.Store(1) // that it was asked for
	if _, err := s.DeleteRecords(t.Context(), store.Filter{Collection: note}); !errors.Is(err, crash) {
		t.Fatalf("delete: %v, want the crash", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	b.s = storetest.OpenPath(t, path)
	wantRecords(t, b.s, 3) // nothing is deleted yet
	b.again()
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "a", "1")))
	if got := b.row().Tally; got.Records != 2 || got.Updated != 1 {
		t.Errorf("the job's tally is %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.s.Run(ctx) }()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for count(t, b.s) != 1 {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d records of the collection", count(t, b.s))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantRecords(t, b.s, 2) // bob's are gone, alice's are what the job found
}

// count is how many records of the collection note are served.
func count(tb testing.TB, s *store.Store) int64 {
	tb.Helper()
	st, err := s.Stats(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return st.Collections[note].Records
}
