package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/storetest"
)

func TestCursorTakenBeforeAChangeGivesTheRestOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	var records []index.Listed
	for i := 20; i > 0; i-- {
		records = append(records, listed(t, fmt.Sprintf("k%02d", i), fmt.Sprint(i)))
	}
	b.mustRead(alice, rev(1), segment(note, records...))
	first, next, err := byKey(t.Context(), b.s, note, nil, 8)
	if err != nil || len(first) != 8 || next == nil {
		t.Fatalf("first page: %d records, next %v, %v", len(first), next, err)
	}
	top, below, err := newest(t.Context(), b.s, note, 0, 8)
	if err != nil || len(top) != 8 || below == 0 {
		t.Fatalf("first page: %d records, next %d, %v", len(top), below, err)
	}
	// Every fourth record goes or changes, and the index moves on.
	b.again()
	changed := map[syntax.RecordKey]bool{}
	var later []index.Listed
	for i, l := range records {
		switch i % 4 {
		case 0:
			changed[l.RKey] = true
		case 1:
			changed[l.RKey] = true
			later = append(later, index.Listed{RKey: l.RKey, Body: body(t, "new")})
		default:
			later = append(later, l)
		}
	}
	b.mustRead(alice, rev(2), segment(note, later...))
	if _, err := b.s.Index.IndexKeys(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	rest, _, err := byKey(t.Context(), b.s, note, next, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantUntouchedOnce(t, append(first, rest...), records, changed)
	rest, _, err = newest(t.Context(), b.s, note, below, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantUntouchedOnce(t, append(top, rest...), records, changed)
}

func wantUntouchedOnce(t *testing.T, got []index.Record, all []index.Listed, changed map[syntax.RecordKey]bool) {
	t.Helper()
	times := map[syntax.RecordKey]int{}
	for _, r := range got {
		times[r.RKey]++
	}
	for _, l := range all {
		if !changed[l.RKey] && times[l.RKey] != 1 {
			t.Errorf("%s came %d times", l.RKey, times[l.RKey])
		}
	}
}

func TestDeletionSparesWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "z", "1")))
	if n, err := b.s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note}); err != nil || n != 3 {
		t.Fatalf("deleted %d, %v; want 3", n, err)
	}
	wantRecords(t, b.s, 1)
	b.again()
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	wantRecords(t, b.s, 3) // a job restores
	if _, err := b.s.Collections.DeleteRecords(t.Context(), index.Filter{}); err == nil {
		t.Error("a deletion without a filter is accepted")
	}
}

func TestRunKeepsTheKeyIndexUpToDate(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.s.Run(ctx) }()
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); ; {
		lag, err := b.s.Index.IndexLag(t.Context(), note)
		if err != nil {
			t.Fatal(err)
		}
		if lag == 0 {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("the key index is still %d changes behind", lag)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
