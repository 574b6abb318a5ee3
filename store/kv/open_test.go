package kv_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"appview/store/kv"
)

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	open(t, kv.Config{Path: path})
	if _, err := kv.Open(kv.Config{Path: path}, schema()); !errors.Is(err, kv.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	if err := openDB(t, kv.Config{Path: path}).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := kv.Open(kv.Config{Path: path, ReadOnly: readOnly}, schema()); !errors.Is(err, kv.ErrNewer) {
			t.Errorf("read-only %t: got %v, want ErrNewer", readOnly, err)
		}
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, path string){
		"cut short": func(t *testing.T, path string) {
			t.Helper()
			if err := os.Truncate(path, 3*8192); err != nil {
				t.Fatal(err)
			}
		},
		"no database": func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a few bytes": func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			db := openDB(t, kv.Config{Path: path})
			if err := errors.Join(db.Do(t.Context(), byUser(put("a"))), db.Close()); err != nil {
				t.Fatal(err)
			}
			damage(t, path)
			for _, readOnly := range []bool{false, true} {
				if _, err := kv.Open(kv.Config{Path: path, ReadOnly: readOnly}, schema()); !errors.Is(err, kv.ErrDamaged) {
					t.Errorf("read-only %t: got %v, want ErrDamaged", readOnly, err)
				}
			}
		})
	}
}

func TestForeignDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := kv.Open(kv.Config{Path: path, ReadOnly: readOnly}, schema()); !errors.Is(err, kv.ErrDamaged) {
			t.Errorf("read-only %t: got %v, want ErrDamaged", readOnly, err)
		}
	}
}

func TestReadingWhatIsNotThereMakesNothing(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	if _, err := kv.Open(kv.Config{Path: path, ReadOnly: true}, schema()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Open(kv.Config{Path: path, ReadOnly: true}, schema()); !errors.Is(err, kv.ErrDamaged) {
		t.Errorf("an empty file: got %v, want ErrDamaged", err)
	}
}

// TestMigrationInParts has a migration that takes several transactions, and a process that
// ends between two of them: the next one begins it anew, and only its end makes the file one
// of the new version.
func TestMigrationInParts(t *testing.T) {
	t.Parallel()
	cfg := kv.Config{Path: newPath(t), FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler)}
	if err := openDB(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	crash := errors.New("the process ends")
	inParts := func(ends int) kv.Schema {
		with, part := schema(), 0
		with.Migrations = append(with.Migrations, func(tx *kv.Tx) error {
			if part++; part == ends {
				return crash
			}
			if err := rows.Put(rows.Bucket(tx), fmt.Append(nil, part), ""); err != nil || part == 4 {
				return err
			}
			return kv.ErrAgain
		})
		return with
	}
	if _, err := kv.Open(cfg, inParts(3)); !errors.Is(err, crash) {
		t.Fatalf("got %v, want the crash", err)
	}
	db := openDB(t, cfg) // it is a file of the old version still
	wantRows(t, db, "1", "2")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := kv.Open(cfg, inParts(0))
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, db, "1", "2", "3", "4")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Open(cfg, schema()); !errors.Is(err, kv.ErrNewer) {
		t.Errorf("opened as one of the old version: %v, want ErrNewer", err)
	}
}
