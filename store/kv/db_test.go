package kv_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"appview/store/kv"
)

// rows is the one table of these tests.
var rows = kv.Table[string]{Name: "rows", Version: 1, Fill: kv.FillSpread}

func schema() kv.Schema {
	return kv.Schema{
		Migrations: []func(*kv.Tx) error{func(tx *kv.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte(rows.Name))
			return err
		}},
		Buckets: []string{rows.Name},
		Checks: []func(context.Context, *kv.Checker) error{func(_ context.Context, c *kv.Checker) error {
			kv.CheckTable(c, rows)
			return nil
		}},
	}
}

// newPath is where a test makes its file.
func newPath(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "appview.db")
}

// openDB opens a file, with groups that do not wait long for company.
func openDB(tb testing.TB, cfg kv.Config) *kv.DB {
	tb.Helper()
	if cfg.FlushEvery == 0 {
		cfg.FlushEvery = 5 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, err := kv.Open(cfg, schema())
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// open is openDB for a file that is closed and checked when the test ends.
func open(tb testing.TB, cfg kv.Config) *kv.DB {
	tb.Helper()
	db := openDB(tb, cfg)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		check(tb, cfg.Path)
	})
	return db
}

// check proves that a closed file is in order.
func check(tb testing.TB, path string) {
	tb.Helper()
	db := openDB(tb, kv.Config{Path: path, ReadOnly: true})
	if err := errors.Join(db.Check(context.Background()), db.Close()); err != nil {
		tb.Errorf("%s is not in order: %v", path, err)
	}
}

// put is a change that writes rows. Nobody waits for it but the program.
func put(keys ...string) kv.Change {
	return kv.Change{Op: "put", Apply: func(tx *kv.Tx) error {
		for _, k := range keys {
			if err := rows.Put(rows.Bucket(tx), []byte(k), k); err != nil {
				return err
			}
		}
		return nil
	}}
}

// byUser is a change that a user waits for.
func byUser(c kv.Change) kv.Change {
	c.Urgent, c.Interactive = true, true
	return c
}

// endingWork is a change that a user waits for, and that ends work.
func endingWork(c kv.Change) kv.Change {
	c.EndsWork = true
	return byUser(c)
}

// submit queues a change and returns what will come of it.
func submit(tb testing.TB, db *kv.DB, c kv.Change) <-chan error {
	tb.Helper()
	done := make(chan error, 1)
	c.Done = func(err error) { done <- err }
	if err := db.Submit(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
	return done
}

// wantRows fails unless these are the keys of the rows.
func wantRows(tb testing.TB, db *kv.DB, want ...string) {
	tb.Helper()
	got, err := kv.Read(context.WithoutCancel(tb.Context()), db, func(tx *kv.Tx) (list []string, err error) {
		err = rows.EachKey(rows.Bucket(tx), func(k []byte) error {
			list = append(list, string(k))
			return nil
		})
		return list, err
	})
	if err != nil || !slices.Equal(got, want) {
		tb.Errorf("rows %.10q, want %.10q, %v", got, want, err)
	}
}

// manyKeys are so many, in order, that their rows take more than a small disk has.
func manyKeys() (list []string) {
	for i := range 40_000 {
		list = append(list, fmt.Sprintf("k%06d", i))
	}
	return list
}

// soon waits for something that gives no sign of its own.
func soon(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			tb.Fatalf("never: %s", what)
		}
	}
}
