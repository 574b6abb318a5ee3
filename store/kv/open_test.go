package kv_test

import (
	"errors"
	"os"
	"testing"

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
