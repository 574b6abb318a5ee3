package kv_test

import (
	"context"
	"slices"
	"testing"

	"appview/store/kv"
)

// TestPartsAreJoinedFromBelow brings a file to the second version by two packages, of which
// the one below needs several transactions.
func TestPartsAreJoinedFromBelow(t *testing.T) {
	t.Parallel()
	var did []string
	note := func(what string, err error) func(*kv.Tx) error {
		return func(*kv.Tx) error { did = append(did, what); return err }
	}
	check := func(context.Context, *kv.Checker) error { did = append(did, "check"); return nil }
	left := 2
	below := kv.Part{
		Buckets: []string{rows.Name},
		Migrations: map[int]func(*kv.Tx) error{
			1: func(tx *kv.Tx) error { return kv.MakeBuckets(tx, rows.Name) },
			2: func(*kv.Tx) error {
				did = append(did, "below")
				if left--; left > 0 {
					return kv.ErrAgain
				}
				return nil
			},
		},
		Check: check, Load: note("load", nil),
	}
	above := kv.Part{Migrations: map[int]func(*kv.Tx) error{2: note("above", nil)}, Check: check, Load: note("load", nil)}
	db, err := kv.Open(kv.Config{Path: newPath(t)}, kv.Join(2, below, above))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if want := []string{"below", "below", "above", "load", "load", "check", "check"}; !slices.Equal(did, want) {
		t.Errorf("got %v, want %v", did, want)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestPruningIsBounded has two packages prune, a row in each transaction.
func TestPruningIsBounded(t *testing.T) {
	t.Parallel()
	pruner := func(prefix string) kv.Pruner {
		return func(context.Context, *kv.DB) (func(*kv.Tx, *int) error, error) {
			return func(tx *kv.Tx, left *int) error {
				for k, _ := rows.Bucket(tx).Cursor().Seek([]byte(prefix)); *left > 0 && k != nil && string(k[:1]) == prefix; k = nil {
					*left--
					if err := rows.Bucket(tx).Delete(k); err != nil {
						return err
					}
				}
				return nil
			}, nil
		}
	}
	part := func(prefix string) kv.Part {
		return kv.Part{
			Migrations: map[int]func(*kv.Tx) error{1: func(tx *kv.Tx) error { return kv.MakeBuckets(tx, rows.Name) }},
			Check:      func(context.Context, *kv.Checker) error { return nil }, Prune: pruner(prefix),
		}
	}
	db, err := kv.Open(kv.Config{Path: newPath(t), Hooks: kv.Hooks{Step: 1}}, kv.Join(1, part("a"), part("b")))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a1", "a2", "b1", "c1"} {
		err := db.Do(t.Context(), kv.Change{Op: "put", Urgent: true, Apply: func(tx *kv.Tx) error {
			return rows.Put(rows.Bucket(tx), []byte(key), "")
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	steps := 0
	for done := false; !done; steps++ {
		if done, err = db.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantRows(t, db, "c1")
	if want := 4; steps != want { // one for each row, and one that finds nothing
		t.Errorf("%d transactions, want %d", steps, want)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
