package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// TestAccountIsHiddenWithItsDenial ends the process after the commit that puts an
// account on the deny list.
func TestAccountIsHiddenWithItsDenial(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	var armed atomic.Bool
	cfg := store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Hooks: store.Hooks{AfterCommit: func() error {
		if armed.Load() {
			return crash
		}
		return nil
	}}}
	s := storetest.OpenConfig(t, cfg)
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "a", "2")))
	armed.Store(true)
	if err := s.Index.Deny(t.Context(), string(alice), ""); !errors.Is(err, crash) {
		t.Fatalf("got %v, want the crash", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Hooks = store.Hooks{}
	s = storetest.OpenConfig(t, cfg)
	list, _, err := newest(t.Context(), s, note, 0, 10)
	if err != nil || len(list) != 1 || list[0].DID != bob {
		t.Errorf("served before anything else is done: %v, %v", list, err)
	}
}

// TestDenialsThatRaceEachOther wants what is enforced to be what is on the list,
// whoever is first to hear that his change was made.
func TestDenialsThatRaceEachOther(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	for range 200 {
		done := make(chan error, 2)
		go func() { done <- s.Index.Deny(t.Context(), string(alice), "") }()
		go func() {
			err := s.Index.Allow(t.Context(), string(alice))
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			done <- err
		}()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Fatal(err)
		}
		list, err := s.Index.Denials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if is := s.Index.Denied(alice, ""); is != (len(list) == 1) {
			t.Fatalf("denied: %t, on the list: %v", is, list)
		}
	}
}

// TestDenialOutlivesItsRequest has the client go away as soon as the entry is in the
// file.
func TestDenialOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Hooks: store.Hooks{
		AfterCommit: func() error { cancel(); return nil },
	}})
	if err := s.Index.Deny(ctx, string(alice), ""); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that the rest was given up", err)
	}
	if !s.Index.Denied(alice, "") {
		t.Error("it is on the list, and not denied")
	}
}

// TestDeniedHostKeepsNothingOfAHalfReadRepo denies the host of a repo that is read in
// steps, whose job ends before the next one.
func TestDeniedHostKeepsNothingOfAHalfReadRepo(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	read, at := saved(t, rev(1), "c", "1")
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, b.s, 1)
	stop(t, b.s, b.job)
	entry, err := index.DenialOf(host)
	if err == nil {
		err = b.s.Index.Deny(t.Context(), entry, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	wantRecords(t, b.s, 0)
}
