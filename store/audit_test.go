package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

var administrator = admin.Actor{Kind: api.ActorKey, KeyID: uuid.MustParse("00000000-0000-4000-8000-000000000001"), Prefix: "hv_abcde", Name: "admin"}

// asAdmin is a context in which an administrator acts.
func asAdmin(tb testing.TB) context.Context {
	tb.Helper()
	return admin.WithActor(tb.Context(), administrator)
}

// audit is the whole audit log as lines of text, the oldest first.
func audit(tb testing.TB, s *store.Store) (lines []string) {
	tb.Helper()
	list, next, err := s.Admin.Events(tb.Context(), 0, 10_000)
	if err != nil || next != 0 {
		tb.Fatalf("events: next %d, %v", next, err)
	}
	for _, e := range list {
		if e.At.IsZero() || e.Actor != administrator {
			tb.Errorf("event %+v has no time, or is of somebody else", e)
		}
		lines = append([]string{fmt.Sprintf("%s %s (%s) %s", e.Action, e.Target, e.Detail, e.Outcome)}, lines...)
	}
	return lines
}

func wantAudit(tb testing.TB, s *store.Store, want ...string) {
	tb.Helper()
	if got := audit(tb, s); strings.Join(got, "\n") != strings.Join(want, "\n") {
		tb.Errorf("the audit log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestActionsOfAdministratorsAreNoted(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s) // the program's own job
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	ctx := asAdmin(t)
	id, again := uuid.New(), uuid.New()
	if _, err := s.Jobs.CreateJob(ctx, id, jobs.Request{Collection: note}, nil); err != nil {
		t.Fatal(err)
	}
	for _, to := range []api.Status{api.StatusPausing, api.StatusRunning, api.StatusCancelling} {
		job, err := s.Jobs.MoveJob(ctx, id, to)
		if err == nil && to != api.StatusRunning {
			_, err = s.Jobs.FinishJob(t.Context(), job.Seq, none)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Jobs.RetryJob(ctx, id, again); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Collections.DeleteRecords(ctx, index.Filter{Collection: note, DID: alice}); err != nil || n != 2 {
		t.Fatalf("deleted %d, %v", n, err)
	}
	if err := errors.Join(s.Index.Deny(ctx, "pds.example.com", "spam"), s.Index.Allow(ctx, "pds.example.com"),
		s.Admin.Note(ctx, admin.Event{Action: api.ActBackup, Outcome: api.OutcomeFailed, Detail: "the client went away"})); err != nil {
		t.Fatal(err)
	}
	wantAudit(t, s,
		"backfill:create "+id.String()+" (com.example.note of every repo) done",
		"backfill:pause "+id.String()+" () done",
		"backfill:resume "+id.String()+" () done",
		"backfill:cancel "+id.String()+" () done",
		"backfill:retry "+again.String()+" (carries on "+id.String()+") done",
		"records:delete com.example.note of "+alice.String()+" () begun",
		"records:delete com.example.note of "+alice.String()+" (2 records deleted) done",
		"denylist:add pds.example.com (spam) done",
		"denylist:remove pds.example.com () done",
		"backup  (the client went away) failed",
	)
}

func TestRefusedActionsAreNotNoted(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	ctx := asAdmin(t)
	if _, err := s.Jobs.MoveJob(ctx, uuid.New(), api.StatusCancelling); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("cancel nothing: %v", err)
	}
	if _, err := s.Jobs.RetryJob(ctx, b.job.ID, uuid.New()); !errors.Is(err, jobs.ErrMove) {
		t.Errorf("retry a running job: %v", err)
	}
	if err := s.Index.Allow(ctx, "pds.example.com"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("allow what is not denied: %v", err)
	}
	wantAudit(t, s)
}

// TestActionAndItsEventAreOneCommit lets the commit of an action fail: neither the
// action nor its event is there afterwards.
func TestActionAndItsEventAreOneCommit(t *testing.T) {
	t.Parallel()
	crash := errors.New("power is gone")
	var armed atomic.Bool
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{BeforeCommit: func() error {
		if armed.Load() {
			return crash
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Index.Deny(asAdmin(t), "a.example", ""); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := s.Index.Deny(asAdmin(t), "b.example", ""); !errors.Is(err, crash) {
		t.Errorf("deny: %v, want the crash", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.OpenPath(t, path)
	wantAudit(t, s, "denylist:add a.example () done")
	if list, err := s.Index.Denials(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("denials: %+v, %v", list, err)
	}
}

var errPower = errors.New("power is gone")

// cutOff runs a change of several commits of which only the first one is made, and
// returns the store as the next process opens it.
func cutOff(t *testing.T, path string, prepare func(*store.Store), change func(*store.Store) error) *store.Store {
	t.Helper()
	var left atomic.Int64 // commits that are let through; below 0: all
	left.Store(-1)
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{BeforeCommit: func() error {
		if left.Load() >= 0 && left.Add(-1) < 0 {
			return errPower
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	prepare(s)
	left.Store(1)
	if err := change(s); !errors.Is(err, errPower) {
		t.Errorf("the change: %v, want it to be cut off", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return storetest.OpenPath(t, path)
}

func TestDeletionThatGoesOnAfterARestartIsNotedWhenItIsDone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s := cutOff(t, path, func(s *store.Store) {
		newBench(t, s).mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	}, func(s *store.Store) error {
		_, err := s.Collections.DeleteRecords(asAdmin(t), index.Filter{Collection: note})
		return err
	})
	wantAudit(t, s, "records:delete com.example.note () begun")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for len(audit(t, s)) < 2 {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the deletion does not go on")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantAudit(t, s, "records:delete com.example.note () begun", "records:delete com.example.note (1 records deleted) done")
}
