package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"appview/store"
)

// TestCheckFindsWhatDoesNotFit changes one row at a time in a way that leaves every
// page whole.
func TestCheckFindsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	whole := populated(t)
	first := func(b *bbolt.Bucket) []byte { k, _ := b.Cursor().First(); return append([]byte(nil), k...) }
	for name, c := range map[string]struct {
		spoil func(tx *bbolt.Tx) error
		want  string
	}{
		"record without an index entry": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("rkeys")).Bucket([]byte(note))
			return b.Delete(first(b))
		}, "of the 1560 records that it should contain"},
		"index entry without a record": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rkeys")).Bucket([]byte(note)).Put([]byte("zzz\x00\x00\x00\x00\x01"), nil)
		}, "stands for no record"},
		"watermark lost": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rkeys_at")).Put([]byte(note), []byte("x"))
		}, "watermark of com.example.note is no number"},
		"deletion cut short": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("deletions")).Bucket([]byte(note))
			return b.Put(first(b), []byte("x"))
		}, "a row of 1 bytes"},
		"record gone": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("records")).Bucket([]byte(note))
			return b.Delete(first(b))
		}, "counts"},
		"log entry gone": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("log")).Bucket([]byte(note))
			return b.Delete(first(b))
		}, "its log entry"},
		"count gone": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("counts")).Delete([]byte(note))
		}, "counts has no com.example.note"},
		"watermark ahead": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rkeys_at")).Put([]byte(note), []byte("\x00\x00\x00\x01\x00\x00\x00\x00"))
		}, "contains change 4294967296"},
		"work of no job": {func(tx *bbolt.Tx) error {
			_, err := tx.Bucket([]byte("work")).CreateBucket([]byte("\x00\x00\x00\x01\x00\x00\x00\x00"))
			return err
		}, "work 0000000100000000 belongs to no job"},
		"cursor of a listing": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("work"))
			return b.Bucket(first(b)).Bucket([]byte("cursor")).Put([]byte(note), []byte("\x09{}"))
		}, "cursor 636f6d"},
		"mark that is no bucket": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("work"))
			return b.Bucket(first(b)).Bucket([]byte("listed")).Put([]byte(alice), []byte("x"))
		}, "is no bucket of a repo's collection"},
		"mark of a listed record": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("work"))
			marks, err := b.Bucket(first(b)).Bucket([]byte("listed")).CreateBucket([]byte(string(alice) + "\x00" + string(note)))
			if err != nil {
				return err
			}
			return marks.Put([]byte("a"), []byte("mark"))
		}, "the mark of listed record"},
		"key":        {func(tx *bbolt.Tx) error { b := tx.Bucket([]byte("keys")); return b.Put(first(b), []byte("\x01{")) }, "keys "},
		"collection": {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("collections")).Put([]byte(note), []byte("\x09{}")) }, "collections "},
		"denial":     {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("denylist")).Put([]byte("x"), []byte("y")) }, "denylist 78"},
		"purge":      {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("purges")).Put([]byte("x"), nil) }, "purges 78"},
		"distrust":   {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("distrusted")).Put([]byte("x"), []byte("y")) }, "distrusted 78"},
		"freshness":  {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("freshness")).Put([]byte("x"), []byte("y")) }, "freshness 78"},
		"totals":     {func(tx *bbolt.Tx) error { return tx.Bucket([]byte("totals")).Put([]byte("x"), []byte("y")) }, "totals 78"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "spoilt.db")
			writeAll(t, path, whole)
			change(t, path, c.spoil)
			if _, err := checked(t, path); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrDamaged with %q", err, c.want)
			}
		})
	}
}

// TestFileWithoutOneOfItsBucketsIsRefused takes them out one at a time, each that a
// new file has.
func TestFileWithoutOneOfItsBucketsIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name := range raw(t, path) {
		if strings.Contains(name, "/") {
			continue
		}
		n++
		writeAll(t, path, whole)
		change(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(name)) })
		for _, readOnly := range []bool{false, true} {
			if _, err := store.Open(store.Config{Path: path, ReadOnly: readOnly}); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("without %s, read-only %t: got %v, want ErrDamaged", name, readOnly, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("a new file has %d buckets", n)
	}
}
