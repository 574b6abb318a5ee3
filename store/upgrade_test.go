package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"appview/store"
	"appview/store/kv/kvtest"
	"appview/store/storetest"
)

// oldFile is a copy of a file as the first format's program has left it.
func oldFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/format1.db")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "appview.db")
	writeAll(t, path, data)
	return path
}

// raw is everything in a file, whatever its format: by the names of buckets and keys.
func raw(tb testing.TB, path string) map[string]string {
	tb.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		tb.Fatal(err)
	}
	got := map[string]string{}
	var walk func(at string, b *bbolt.Bucket) error
	walk = func(at string, b *bbolt.Bucket) error {
		got[at] = fmt.Sprint(b.Sequence())
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(at+"/"+string(k), b.Bucket(k))
			}
			got[at+"/"+string(k)] = string(v)
			return nil
		})
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return walk(string(name), b) })
	})
	if err := errors.Join(err, db.Close()); err != nil {
		tb.Fatal(err)
	}
	return got
}

func TestOldFileIsKeptBesideTheNewOne(t *testing.T) {
	t.Parallel()
	path := oldFile(t)
	old, kept := raw(t, path), path+".format1.backup"
	writeAll(t, kept+".part-CRASHED", bytes.Repeat([]byte("what a crash has left"), 100_000))
	log := &kvtest.Log{}
	cfg := store.Config{Path: path, Log: slog.New(slog.NewTextHandler(log, nil))}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	newBench(t, s).mustRead(alice, rev(9), segment(note, listed(t, "z", "new")))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, kept); !maps.Equal(got, old) || binary.BigEndian.Uint64([]byte(got["meta/schema"])) != 1 {
		t.Errorf("the copy differs: %v", difference(got, old))
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info, err)
	}
	if all := log.String(); !strings.Contains(all, "file="+kept) || !strings.Contains(all, "brought to the current format") {
		t.Errorf("the log does not name the copy:\n%s", all)
	}
	if _, err := os.Stat(kept + ".part-CRASHED"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}

	// A file that is up to date is not copied.
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	storetest.OpenPath(t, path)
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was copied again: %v", err)
	}
}

func TestOldFileThatCannotBeKeptIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	path := oldFile(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// With the reserve that is left alone there is just not enough.
	room := uint64(len(before)) + 256<<20 - 1
	_, err = store.Open(store.Config{Path: path, FreeSpace: func(string) (uint64, error) { return room, nil }})
	if !errors.Is(err, store.ErrDiskFull) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("got %v, want ErrDiskFull", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed, %v", err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// The copy is what the program before needs.
	room++
	s, err := store.Open(store.Config{Path: path, FreeSpace: func(string) (uint64, error) { return room, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".format1.backup", path); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, storetest.OpenPath(t, path), 3)
}

// TestRowsOfTheFormatBeforeAreSealedWhenTheyAreWritten has a file in which no row of a
// table is sealed. It says what it said, and what is written in it from then on is sealed.
func TestRowsOfTheFormatBeforeAreSealedWhenTheyAreWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	writeAll(t, path, populated(t))
	want, err := checked(t, path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := store.Unseal(path)
	if err != nil || rows < 80 {
		t.Fatalf("%d rows, %v", rows, err)
	}
	first := func(names ...string) (bytes []byte) {
		all := raw(t, path)
		for _, name := range names {
			bytes = append(bytes, (all[name] + "-")[0])
		}
		return bytes
	}
	// The 21st repo is read below, the 22nd is not.
	names := []string{"repos/\x00\x00\x00\x15", "counts/" + string(note), "totals/settled", "repos/\x00\x00\x00\x16"}
	if got := first(names...); string(got) != "\x01\x01\x01\x01" {
		t.Fatalf("%q begin with % x", names, got)
	}
	if all := raw(t, path); len(all["meta/next_seq"]) != 8 || len(all["rkeys_at/"+string(note)]) != 8 {
		t.Fatalf("numbers are sealed: % x, % x", all["meta/next_seq"], all["rkeys_at/"+string(note)])
	}
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := everything(t, s); err != nil || !maps.Equal(got, want) {
		t.Errorf("it answers differently: %v, %v", difference(got, want), err)
	}
	if err := errors.Join(s.Check(t.Context()), use(t, s), s.Check(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := first(names...); string(got) != "\xc1\xc1\xc1\x01" {
		t.Errorf("after that %q begin with % x", names, got)
	}
	if all := raw(t, path); len(all["meta/next_seq"]) != 12 || len(all["meta/schema"]) != 8 {
		t.Errorf("after that the next change is % x, and the format % x", all["meta/next_seq"], all["meta/schema"])
	}
	if _, err := checked(t, path); err != nil {
		t.Error(err)
	}
}

// TestMigrationGoesOnAfterACrash ends the process between two steps of bringing an old
// file up to date, between every two there are. The next one goes on, and ends with
// the same file. Within a step there is nothing to be found: each is one transaction.
func TestMigrationGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	brought := func(format int) map[string]string {
		t.Helper()
		path := oldFile(t)
		if err := store.MigrateTo(path, format); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(store.Config{Path: path, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = errors.Join(s.Check(t.Context()), s.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return raw(t, path)
	}
	want := brought(1)
	if store.Formats() < 3 {
		t.Fatalf("%d formats: there is nothing between two steps", store.Formats())
	}
	for format := 2; format < store.Formats(); format++ {
		if got := brought(format); !maps.Equal(got, want) {
			t.Errorf("after a crash behind the step to format %d: %v", format, difference(got, want))
		}
	}
}
