package admin_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

func TestEventsComeInPagesNewestFirst(t *testing.T) {
	t.Parallel()
	s := open(t, kv.Config{Path: newPath(t)})
	for i := range 25 {
		if err := s.Note(asAdmin(t), admin.Event{Action: api.ActBackup, Target: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	pages := 0
	for below := uint64(0); ; pages++ {
		list, next, err := s.Events(t.Context(), below, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			got = append(got, e.Target)
		}
		if next == 0 {
			break
		}
		below = next
		// What is new in between is not on later pages.
		if err := s.Note(asAdmin(t), admin.Event{Action: api.ActBackup, Target: "new"}); err != nil {
			t.Fatal(err)
		}
	}
	if want := "24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0"; strings.Join(got, " ") != want || pages != 2 {
		t.Errorf("%d more pages, got %v", pages, got)
	}
	if list, next, err := s.Events(t.Context(), 1, 10); err != nil || len(list) != 0 || next != 0 {
		t.Errorf("below the first: %v %d %v", list, next, err)
	}
}

func TestOldAndTooManyEventsAreForgotten(t *testing.T) {
	t.Parallel()
	var offset atomic.Int64
	cfg := kv.Config{
		Path: newPath(t),
		Now:  func() time.Time { return time.Now().Add(time.Duration(offset.Load())) },
	}
	s := openFile(t, cfg)
	note := func(target string) {
		t.Helper()
		if err := s.Note(asAdmin(t), admin.Event{Action: api.ActBackup, Target: target}); err != nil {
			t.Fatal(err)
		}
	}
	note("old")
	offset.Store(int64(300 * 24 * time.Hour))
	note("middle")
	s.prune(t)
	wantAudit(t, s, "backup old () done", "backup middle () done")
	offset.Store(int64(401 * 24 * time.Hour))
	s.prune(t)
	wantAudit(t, s, "backup middle () done")
	s.close(t)
	// As if as many had followed as are kept.
	db, err := bbolt.Open(cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("audit")).SetSequence(50_001) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	s.prune(t)
	wantAudit(t, s, "backup middle () done")
	note("new")
	s.prune(t)
	wantAudit(t, s, "backup new () done")
}

func TestEventsHoldNoMoreThanTheyMay(t *testing.T) {
	t.Parallel()
	s := open(t, kv.Config{Path: newPath(t)})
	if err := s.Note(asAdmin(t), admin.Event{Action: api.ActBackup, Detail: strings.Repeat("ü", 2_000)}); err != nil {
		t.Fatal(err)
	}
	list, _, err := s.Events(t.Context(), 0, 1)
	if err != nil || list[0].Detail != strings.Repeat("ü", 1_000)+"…" {
		t.Errorf("detail of %d bytes, %v", len(list[0].Detail), err)
	}
}
