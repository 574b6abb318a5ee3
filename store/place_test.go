package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/store"
)

// TestFileTakenAwayStopsTheStore removes or replaces what is being written to. What
// is written then would be gone with the process.
func TestFileTakenAwayStopsTheStore(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("open files stay where they are")
	}
	for name, c := range map[string]struct {
		take func(dir, path string) error
		want string
	}{
		"directory removed": {func(dir, _ string) error { return os.RemoveAll(dir) }, "was removed, or moved away"},
		"directory moved":   {func(dir, _ string) error { return os.Rename(dir, dir+"-moved") }, "was removed, or moved away"},
		"file replaced": {func(_, path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("x"), 0o600), os.Rename(path+".new", path))
		}, "was replaced"},
	} {
		for _, idle := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " while idle", false: ""}[idle], func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "data")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "appview.db")
				s, err := store.Open(store.Config{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				b := newBench(t, s)
				if err := c.take(dir, path); err != nil {
					t.Fatal(err)
				}
				if idle {
					err = s.Run(t.Context()) // looks by itself
				} else {
					_, err = s.MoveJob(t.Context(), b.job.ID, store.StatusPausing)
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want that it %s", err, c.want)
				}
				select {
				case <-s.Failed():
				case <-time.After(30 * time.Second):
					t.Error("the store goes on")
				}
				if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); err == nil {
					t.Error("it is still written to")
				}
				if got := b.row(); got.Status != store.StatusRunning {
					t.Errorf("what was not written is read: %s", got.Status)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestFileReplacedBeforeItIsLockedIsNotUsed opens a file that is replaced while its
// lock is waited for: compaction ends like that.
func TestFileReplacedBeforeItIsLockedIsNotUsed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("open files stay where they are")
	}
	path := filepath.Join(t.TempDir(), "appview.db")
	old, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	whole := populated(t)
	opened := make(chan error, 1)
	var s *store.Store
	go func() {
		s, err = store.Open(store.Config{Path: path})
		opened <- err
	}()
	writeAll(t, path+".new", whole)
	if err := errors.Join(os.Rename(path+".new", path), old.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; errors.Is(err, store.ErrLocked) {
		t.Skip("this machine took too long to replace the file")
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // it has been written by nobody
	if jobs, err := s.Jobs(context.WithoutCancel(t.Context())); err != nil || len(jobs) == 0 {
		t.Errorf("%d jobs, %v: it is the file that was replaced", len(jobs), err)
	}
}
