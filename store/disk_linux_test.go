package store_test

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

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"appview/store"
	"appview/store/storetest"
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

// soon waits for something that gives no sign of its own.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// TestCommitThatFindsNoRoomIsMadeWhenThereIsSome fills the disk so that a commit
// fails in the middle of its pages although the look at the disk before it was fine.
func TestCommitThatFindsNoRoomIsMadeWhenThereIsSome(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	path := filepath.Join(dir, "appview.db")
	var commits atomic.Int64
	log := &logged{}
	s := storetest.OpenConfig(t, store.Config{
		Path: path, Log: slog.New(slog.NewTextHandler(log, nil)),
		FreeSpace: func(string) (uint64, error) { return 1 << 40, nil }, // a quota is not seen either
		Hooks:     store.Hooks{BeforeCommit: func() error { commits.Add(1); return nil }},
	})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.owe(bob)
	var list []store.Listed
	for k := 9_000; k > 0; k-- {
		list = append(list, listed(t, fmt.Sprintf("3k%011d", k), fmt.Sprint(k)))
	}
	weight := ballast(t, dir, 256<<10)
	before := commits.Load()
	done := make(chan error, 1)
	if err := s.Settle(t.Context(), b.job.Seq, settlement(bob, rev(1), segment(note, list...)), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	soon(t, "the full disk is noticed", s.DiskFull)
	if commits.Load() == before {
		t.Fatal("no commit was tried: the disk was full before")
	}
	wantRecords(t, s, 1) // nothing of it is there, and reads go on
	if job := b.row(); job.Processed != 1 {
		t.Errorf("%d repos are settled, want 1", job.Processed)
	}
	if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("a user is told %v, want ErrDiskFull", err)
	}
	// A process that ends now leaves a file that is whole.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left.db")
	writeAll(t, left, data)
	storetest.Check(t, left)
	// It is tried again and again, without a word more in the log.
	tried := commits.Load()
	soon(t, "it is tried again", func() bool { return commits.Load() > tried })
	select {
	case err := <-done:
		t.Fatalf("settled on a full disk: %v", err)
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
	wantRecords(t, s, 1+int64(len(list)))
	if got, want := b.row().Tally, (store.Tally{Records: 9001, Created: 9001}); got != want {
		t.Errorf("tally %+v, want %+v", got, want)
	}
	if s.DiskFull() || !strings.Contains(log.String(), "room again") {
		t.Errorf("the disk still counts as full:\n%s", log)
	}
	if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); err != nil {
		t.Error(err)
	}
}

// TestJobCanBeStoppedWithNoByteLeft has changes wait on a disk without any room: what
// ends work is done in pages that the file has already, or refused with the reason,
// and nothing hangs.
func TestJobCanBeStoppedWithNoByteLeft(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	s := storetest.OpenConfig(t, store.Config{
		Path: filepath.Join(dir, "appview.db"), FreeSpace: func(string) (uint64, error) { return 1 << 40, nil },
	})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.owe(bob)
	var list []store.Listed
	for k := 9_000; k > 0; k-- {
		list = append(list, listed(t, fmt.Sprintf("3k%011d", k), fmt.Sprint(k)))
	}
	weight := ballast(t, dir, 0)
	done := make(chan error, 1)
	if err := s.Settle(t.Context(), b.job.Seq, settlement(bob, rev(1), segment(note, list...)), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	soon(t, "the full disk is noticed", s.DiskFull)
	_, errPause := s.MoveJob(t.Context(), b.job.ID, store.StatusPausing)
	if errPause != nil && !errors.Is(errPause, store.ErrDiskFull) {
		t.Errorf("pause: %v", errPause)
	}
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil { // the job is not final: what was read counts
		t.Fatal(err)
	}
	if paused := b.row().Status == store.StatusPausing; paused != (errPause == nil) {
		t.Errorf("job is %s after %v", b.row().Status, errPause)
	}
	wantRecords(t, s, 1+int64(len(list)))
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
			path := filepath.Join(t.TempDir(), "appview.db")
			var commits atomic.Int64
			s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{
				BeforeCommit: func() error { commits.Add(1); return nil },
			}})
			if err != nil {
				t.Fatal(err)
			}
			b := newBench(t, s)
			for i := range 8 { // so that pages are free, and the file need not grow
				b.mustRead(syntax.DID(fmt.Sprintf("did:plc:%024d", i)), rev(1), segment(note, listed(t, "a", "1")))
			}
			swap(t, path, c.file(path), c.flags)
			before := commits.Load()
			if _, err := s.MoveJob(t.Context(), b.job.ID, store.StatusCancelling); !errors.Is(err, c.want) || errors.Is(err, store.ErrDamaged) {
				t.Errorf("the commit says %v, want %v", err, c.want)
			}
			select {
			case <-s.Failed():
			case <-time.After(30 * time.Second):
				t.Fatal("the store goes on")
			}
			for range 3 {
				if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); !errors.Is(err, c.want) {
					t.Errorf("a later write says %v", err)
				}
			}
			if n := commits.Load() - before; n != 1 {
				t.Errorf("%d commits were tried, want 1", n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			b.s = storetest.OpenPath(t, path)
			if got := b.row(); got.Status != store.StatusRunning {
				t.Errorf("job is %s", got.Status)
			}
			wantRecords(t, b.s, 8)
		})
	}
}

func TestReadOnlyDiskIsSaidAndCheckedAllTheSame(t *testing.T) {
	t.Parallel()
	dir := volume(t, 8<<20)
	path := filepath.Join(dir, "appview.db")
	writeAll(t, path, populated(t))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Config{Path: path}); !errors.Is(err, unix.EROFS) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("open for writing: %v", err)
	}
	storetest.Check(t, path)
}
