package store_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"appview/store"
	"appview/store/index"
)

// TestJobDuringADeletionBringsTheRecordsBack has a job read a repo while a deletion
// has still to come to its records: what the job found must stay.
func TestJobDuringADeletionBringsTheRecordsBack(t *testing.T) {
	t.Parallel()
	var b *bench
	s := cutOff(t, filepath.Join(t.TempDir(), "appview.db"), func(s *store.Store) {
		b = newBench(t, s)
		b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "a", "1")))
		b.mustRead(bob, rev(1), segment(note, listed(t, "a", "1")))
	}, func(s *store.Store) error {
		_, err := s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note})
		return err
	})
	b.s = s
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
