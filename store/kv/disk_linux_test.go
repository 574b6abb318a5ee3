package kv_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appview/store/kv"
	"appview/store/kv/kvtest"
)

// volume mounts a file system of its own with the given number of bytes.
func volume(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("appview-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// ballast fills the volume until the given number of bytes is left.
func ballast(t *testing.T, dir string, left int) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ballast")
	if err := os.WriteFile(path, make([]byte, int(st.Bavail)*int(st.Bsize)-left), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCommitThatFindsNoRoomIsMadeWhenThereIsSome fills the disk so that a commit
// fails in the middle of its pages although the look at the disk before it was fine.
func TestCommitThatFindsNoRoomIsMadeWhenThereIsSome(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	path := filepath.Join(dir, "appview.db")
	var commits atomic.Int64
	log := &kvtest.Log{}
	db := open(t, kv.Config{
		Path: path, Log: slog.New(slog.NewTextHandler(log, nil)),
		FreeSpace: func(string) (uint64, error) { return 1 << 40, nil }, // a quota is not seen either
		Hooks:     kv.Hooks{BeforeCommit: func() error { commits.Add(1); return nil }},
	})
	if err := db.Do(t.Context(), byUser(put("a"))); err != nil {
		t.Fatal(err)
	}
	weight := ballast(t, dir, 256<<10)
	before := commits.Load()
	done := submit(t, db, put(manyKeys()...))
	soon(t, "the full disk is noticed", db.DiskFull)
	if commits.Load() == before {
		t.Fatal("no commit was tried: the disk was full before")
	}
	wantRows(t, db, "a") // nothing of it is there, and reads go on
	if err := db.Do(t.Context(), byUser(put("b"))); !errors.Is(err, kv.ErrDiskFull) {
		t.Errorf("a user is told %v, want ErrDiskFull", err)
	}
	// A process that ends now leaves a file that is whole.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left.db")
	if err := os.WriteFile(left, data, 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, left)
	// It is tried again and again, without a word more in the log.
	tried := commits.Load()
	soon(t, "it is tried again", func() bool { return commits.Load() > tried })
	select {
	case err := <-done:
		t.Fatalf("written to a full disk: %v", err)
	default:
	}
	if n := strings.Count(log.String(), "disk is full"); n != 1 {
		t.Errorf("the log says %d times that the disk is full:\n%s", n, log)
	}
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("after there is room: %v", err)
	}
	wantRows(t, db, append([]string{"a"}, manyKeys()...)...)
	if db.DiskFull() || !strings.Contains(log.String(), "room again") {
		t.Errorf("the disk still counts as full:\n%s", log)
	}
	if err := db.Do(t.Context(), byUser(put("b"))); err != nil {
		t.Error(err)
	}
}

// TestWorkCanBeEndedWithNoByteLeft has changes wait on a disk without any room: what
// ends work is done in pages that the file has already, or refused with the reason,
// and nothing hangs.
func TestWorkCanBeEndedWithNoByteLeft(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	db := open(t, kv.Config{
		Path: filepath.Join(dir, "appview.db"), FreeSpace: func(string) (uint64, error) { return 1 << 40, nil },
	})
	if err := db.Do(t.Context(), byUser(put("a"))); err != nil {
		t.Fatal(err)
	}
	weight := ballast(t, dir, 0)
	done := submit(t, db, put(manyKeys()...))
	soon(t, "the full disk is noticed", db.DiskFull)
	errEnd := db.Do(t.Context(), endingWork(put("b")))
	if errEnd != nil && !errors.Is(errEnd, kv.ErrDiskFull) {
		t.Errorf("end work: %v", errEnd)
	}
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := []string{"a"}
	if errEnd == nil {
		want = append(want, "b")
	}
	wantRows(t, db, append(want, manyKeys()...)...)
}

// swap puts another file under the descriptor by which the database is written. The
// database goes on reading its own through its map.
func swap(t *testing.T, path, other string, flags int) {
	t.Helper()
	with, err := unix.Open(other, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(with) }()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != path {
			continue
		}
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		if fd == with {
			continue
		}
		if err := unix.Dup3(with, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s is not open", path)
}

// TestFailedWriteOrSyncIsFinal has the system fail what bbolt asks of it. The commit
// is not made again, nothing is written any more, and the file is as it was.
func TestFailedWriteOrSyncIsFinal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file  func(path string) string
		flags int
		want  error
	}{
		// It takes all that is written, and cannot be synced.
		"sync": {func(string) string { return os.DevNull }, unix.O_RDWR, unix.EINVAL},
		// Our own file, not open for writing.
		"write": {func(path string) string { return path }, unix.O_RDONLY, unix.EBADF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			var commits atomic.Int64
			db := openDB(t, kv.Config{Path: path, FlushEvery: time.Millisecond, Hooks: kv.Hooks{
				BeforeCommit: func() error { commits.Add(1); return nil },
			}})
			var keys []string
			for i := range 8 { // so that pages are free, and the file need not grow
				keys = append(keys, fmt.Sprint(i))
				if err := db.Do(t.Context(), byUser(put(keys[i]))); err != nil {
					t.Fatal(err)
				}
			}
			swap(t, path, c.file(path), c.flags)
			before := commits.Load()
			if err := db.Do(t.Context(), endingWork(put("x"))); !errors.Is(err, c.want) || errors.Is(err, kv.ErrDamaged) {
				t.Errorf("the commit says %v, want %v", err, c.want)
			}
			select {
			case <-db.Failed():
			case <-time.After(30 * time.Second):
				t.Fatal("the writer goes on")
			}
			for range 3 {
				if err := db.Do(t.Context(), byUser(put("y"))); !errors.Is(err, c.want) {
					t.Errorf("a later write says %v", err)
				}
			}
			if n := commits.Load() - before; n != 1 {
				t.Errorf("%d commits were tried, want 1", n)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			wantRows(t, open(t, kv.Config{Path: path}), keys...)
		})
	}
}

func TestReadOnlyDiskIsSaidAndCheckedAllTheSame(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	path := filepath.Join(dir, "appview.db")
	room := func(string) (uint64, error) { return 1 << 40, nil }
	db := openDB(t, kv.Config{Path: path, FreeSpace: room})
	if err := errors.Join(db.Do(t.Context(), byUser(put("a"))), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Open(kv.Config{Path: path}, schema()); !errors.Is(err, unix.EROFS) || errors.Is(err, kv.ErrDamaged) {
		t.Errorf("open for writing: %v", err)
	}
	check(t, path)
}
