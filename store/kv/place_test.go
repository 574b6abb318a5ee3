package kv_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"appview/store/kv"
)

// TestFileTakenAwayStopsTheWriter removes or replaces what is being written to. What
// is written then would be gone with the process.
func TestFileTakenAwayStopsTheWriter(t *testing.T) {
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
				db := openDB(t, kv.Config{Path: path})
				if err := db.Do(t.Context(), byUser(put("a"))); err != nil {
					t.Fatal(err)
				}
				if err := c.take(dir, path); err != nil {
					t.Fatal(err)
				}
				var err error
				if idle {
					err = db.CheckPlace()
				} else {
					err = db.Do(t.Context(), byUser(put("b")))
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want that it %s", err, c.want)
				}
				select {
				case <-db.Failed():
				case <-time.After(30 * time.Second):
					t.Error("the writer goes on")
				}
				if err := db.Do(t.Context(), byUser(put("c"))); err == nil {
					t.Error("it is still written to")
				}
				wantRows(t, db, "a")
				if err := db.Close(); err != nil {
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
	path, whole := newPath(t), newPath(t)
	db := openDB(t, kv.Config{Path: whole})
	if err := errors.Join(db.Do(t.Context(), byUser(put("a"))), db.Close()); err != nil {
		t.Fatal(err)
	}
	old := openDB(t, kv.Config{Path: path})
	opened := make(chan error, 1)
	go func() {
		var err error
		db, err = kv.Open(kv.Config{Path: path}, schema())
		opened <- err
	}()
	if err := errors.Join(os.Rename(whole, path), old.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; errors.Is(err, kv.ErrLocked) {
		t.Skip("this machine took too long to replace the file")
	} else if err != nil {
		t.Fatal(err)
	}
	wantRows(t, db, "a") // and not those of the file that was replaced
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
