package store_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"appview/store"
	"appview/store/admin"
	"appview/store/storetest"
)

func TestLastUsesAreWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(store.Config{Path: path, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		id := uuid.New()
		if err := s.Admin.PutAPIKey(t.Context(), "hv_used", admin.APIKey{ID: id, Name: "used", CreatedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		version := func() uint64 {
			v, err := s.Index.Version(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		pass(30 * time.Second)
		before := version()
		for range 50 { // once a second, as a page in a browser asks
			s.Admin.UseAPIKey(id, time.Now())
			pass(time.Second)
		}
		if n := version() - before; n != 1 {
			t.Errorf("%d commits in the first minute of uses, want 1", n)
		}
		pass(2 * time.Minute)
		before = version()
		pass(10 * time.Minute)
		if n := version() - before; n != 0 {
			t.Errorf("%d commits while nothing is used", n)
		}
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	if k, err := storetest.OpenPath(t, path).Admin.APIKey(t.Context(), "hv_used"); err != nil || k.LastUsedAt.IsZero() {
		t.Errorf("no use was written: %v", err)
	}
}
