// Package storetest opens stores for tests and proves, when a test ends, that
// the file it leaves is in order.
package storetest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"appview/store"
)

// Open opens a store in the test's own directory. It is checked and closed when
// the test ends.
func Open(tb testing.TB) *store.Store {
	tb.Helper()
	return OpenPath(tb, filepath.Join(tb.TempDir(), "appview.db"))
}

// OpenPath opens the store at path. It is checked and closed when the test ends.
func OpenPath(tb testing.TB, path string) *store.Store {
	tb.Helper()
	return OpenConfig(tb, store.Config{Path: path})
}

// OpenConfig opens a store, with groups that do not wait long for company. It is
// checked and closed when the test ends.
func OpenConfig(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	if cfg.FlushEvery == 0 {
		cfg.FlushEvery = 5 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := store.Open(cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
		Check(tb, cfg.Path)
	})
	return s
}

// Check proves that the closed file at path is in order.
func Check(tb testing.TB, path string) {
	tb.Helper()
	s, err := store.Open(store.Config{Path: path, ReadOnly: true})
	if err != nil {
		tb.Errorf("open %s for its check: %v", path, err)
		return
	}
	if err := s.Check(context.Background()); err != nil {
		tb.Errorf("%s is not in order: %v", path, err)
	}
	if err := s.Close(); err != nil {
		tb.Errorf("close %s after its check: %v", path, err)
	}
}
