package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/datadir"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// loose makes a file of which most is free.
func loose(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "appview.db")
	writeAll(t, path, populated(t))
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	var list []index.Listed
	for k := 6_000; k > 0; k-- {
		list = append(list, listed(t, fmt.Sprintf("3k%011d", k), fmt.Sprint(k)))
	}
	b.mustRead(bob, rev(1), segment("com.example.much", list...))
	if _, err := s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: "com.example.much"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func answers(t *testing.T, path string) map[string]string {
	t.Helper()
	got, err := checked(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCompactedFileHoldsTheSameInLess(t *testing.T) {
	t.Parallel()
	path := loose(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	want := answers(t, path)
	before, after, err := store.Compact(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != after || after >= before/2 || info.Mode().Perm() != 0o640 {
		t.Errorf("from %d to %d bytes, the file has %d and mode %s, %v", before, after, info.Size(), info.Mode(), err)
	}
	if got := answers(t, path); !maps.Equal(got, want) {
		t.Errorf("it answers differently: %v", difference(got, want))
	}
	// It is as small as it gets, and goes on as a database.
	if again, less, err := store.Compact(t.Context(), store.Config{Path: path}); err != nil || again != after || less < again*9/10 {
		t.Errorf("once more: from %d to %d, %v", again, less, err)
	}
	b := newBench(t, storetest.OpenPath(t, path))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatIsFreeIsWhatCompactionGivesBack(t *testing.T) {
	t.Parallel()
	path := loose(t)
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(t.Context())
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	before, after, err := store.Compact(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	// It packs pages closer too, and the copy has a few that are free.
	const slack = 256 << 10
	given := before - after
	if st.FileBytes != before || given < 8*slack || st.FreeBytes < given-slack || st.FreeBytes > given+slack {
		t.Errorf("%d of %d bytes were said to be free, compaction gave %d of %d back", st.FreeBytes, st.FileBytes, given, before)
	}
}

func TestCompactionThatFailsLeavesTheFileAsItWas(t *testing.T) {
	t.Parallel()
	path := loose(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unchanged := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s: the file was changed, %v", what, err)
		}
		if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 0 {
			t.Errorf("%s left behind: %v, %v", what, left, err)
		}
	}
	_, _, err = store.Compact(t.Context(), store.Config{Path: path, FreeSpace: func(string) (uint64, error) { return 1 << 20, nil }})
	unchanged("no room", err, store.ErrDiskFull)
	if !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "1 MiB are free") {
		t.Errorf("no room is said as %v", err)
	}

	s, err := store.Open(store.Config{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = store.Compact(t.Context(), store.Config{Path: path})
	unchanged("locked", err, store.ErrLocked)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = store.Compact(ctx, store.Config{Path: path})
	unchanged("given up", err, context.Canceled)

	_, _, err = store.Compact(t.Context(), store.Config{Path: path + "x"})
	unchanged("no file", err, os.ErrNotExist)

	whole, at := bytes.Clone(before), 0
	for _, id := range kinds(t, before)["leaf"] {
		if bytes.Contains(before[id*pageLen:][:pageLen], []byte(" of 20")) { // records
			at = id * pageLen
		}
	}
	before[at+10]-- // it has lost a row
	writeAll(t, path, before)
	_, _, err = store.Compact(t.Context(), store.Config{Path: path})
	unchanged("row lost", err, store.ErrDamaged)

	before = whole
	before[at]++ // it says that it is another page
	writeAll(t, path, before)
	_, _, err = store.Compact(t.Context(), store.Config{Path: path})
	unchanged("page confused", err, store.ErrDamaged)
}

// TestCompactionThatWasCutOffIsMadeAnew leaves what a process that was killed in the
// middle leaves.
func TestCompactionThatWasCutOffIsMadeAnew(t *testing.T) {
	t.Parallel()
	path := loose(t)
	want := answers(t, path)
	half := populated(t)
	writeAll(t, path+".compact", half[:len(half)/2])
	if got := answers(t, path); !maps.Equal(got, want) {
		t.Error("what was left is used")
	}
	if _, _, err := store.Compact(t.Context(), store.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	if got := answers(t, path); !maps.Equal(got, want) {
		t.Errorf("it answers differently: %v", difference(got, want))
	}
}

// TestDatabaseThatIsALinkIsRefused covers every way of opening one: whoever owns the
// directory could lead root to any file of the system.
func TestDatabaseThatIsALinkIsRefused(t *testing.T) {
	t.Parallel()
	path := loose(t)
	before := raw(t, path)
	dir := t.TempDir()
	links := map[string]string{"absolute": path, "dangling": filepath.Join(dir, "nothing"), "within": "real.db"}
	writeAll(t, filepath.Join(dir, "real.db"), populated(t))
	for name, to := range links {
		link := filepath.Join(dir, name+".db")
		if err := os.Symlink(to, link); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
		_, _, errCompact := store.Compact(t.Context(), store.Config{Path: link})
		s, errOpen := store.Open(store.Config{Path: link})
		if errOpen == nil {
			errOpen = errors.Join(errors.New("it was opened"), s.Close())
		}
		_, errRead := store.Open(store.Config{Path: link, ReadOnly: true})
		for how, err := range map[string]error{"compact": errCompact, "open": errOpen, "read": errRead} {
			if !errors.Is(err, datadir.ErrLink) || !strings.Contains(err.Error(), "--data-dir") {
				t.Errorf("%s link, %s: %v", name, how, err)
			}
		}
		if got, err := os.Readlink(link); err != nil || got != to {
			t.Errorf("%s: the link was replaced: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made at the end of a link: %v", err)
	}
	if after := raw(t, path); !maps.Equal(after, before) {
		t.Errorf("the file was changed: %v", difference(after, before))
	}
}

func TestDirectoryMayBeALink(t *testing.T) {
	t.Parallel()
	path := loose(t)
	link := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink(filepath.Dir(path), link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, _, err := store.Compact(t.Context(), store.Config{Path: filepath.Join(link, filepath.Base(path))}); err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, path)
}

// TestCompactionFollowsNoLink plants links, pipes and files of others where compaction
// writes, before it begins and once its copy is made.
func TestCompactionFollowsNoLink(t *testing.T) {
	t.Parallel()
	path := loose(t)
	victim := filepath.Join(t.TempDir(), "victim")
	writeAll(t, victim, []byte("of root's"))
	if err := os.Chmod(victim, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path+".compact"); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Compact(t.Context(), store.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(victim)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of another file was changed: %v, %v", info.Mode(), err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "of root's" {
		t.Errorf("another file was written: %q, %v", got, err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o666 {
		t.Errorf("the database: %v, %v", info, err)
	}
	storetest.Check(t, path)
}

// TestBackupIsOneMoment takes backups while repos are settled, each in a transaction
// with the job's counters.
func TestBackupIsOneMoment(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	path := filepath.Join(t.TempDir(), "backup.db")
	for round := range 4 {
		done, n := make(chan error, 1), 0
		go func() {
			f, err := os.Create(path)
			if err != nil {
				done <- err
				return
			}
			begin := func(size int64) error { n = int(size); return nil }
			done <- errors.Join(s.Backup(context.Background(), begin, f), f.Close())
		}()
		for i := range 5 {
			did := syntax.DID(fmt.Sprintf("did:plc:%024d", 10*round+i))
			b.mustRead(did, rev(1), segment(note, listed(t, "b", fmt.Sprint(i)), listed(t, "a", fmt.Sprint(i))))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != int64(n) {
			t.Errorf("%d bytes were announced, %d came, %v", n, info.Size(), err)
		}
		storetest.Check(t, path)
	}
}

func TestBackupEndsWithItsContextAndWithItsWriter(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	full := errors.New("the client is gone")
	begin := func(int64) error { return nil }
	if err := s.Backup(t.Context(), begin, failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := s.Backup(t.Context(), func(int64) error { return full }, failingWriter{}); !errors.Is(err, full) {
		t.Errorf("a refused begin: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Backup(ctx, func(int64) error { cancel(); return nil }, failingWriter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ends: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write(p []byte) (int, error) { return len(p), w.err }
