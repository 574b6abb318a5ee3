package index_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/kv"
)

const (
	alice = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	note  = syntax.NSID("com.example.note")
)

// open opens a file with an index and no jobs. It is checked and closed when the test ends.
func open(t *testing.T) (*index.Index, *kv.DB) {
	t.Helper()
	x := index.New(0)
	db, err := kv.Open(kv.Config{Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond}, kv.Join(9, admin.Part(), x.Part()))
	if err != nil {
		t.Fatal(err)
	}
	x.Use(db)
	t.Cleanup(func() {
		if err := errors.Join(db.Check(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return x, db
}

// listed is a record as a host lists it, whose value is {"n": n}.
func listed(t *testing.T, rkey syntax.RecordKey, n byte) index.Listed {
	t.Helper()
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum([]byte{0xa1, 0x61, 'n', n})
	if err != nil {
		t.Fatal(err)
	}
	body, err := record.FromJSON(fmt.Appendf(nil, `{"n":%d}`, n), id.String())
	if err != nil {
		t.Fatal(err)
	}
	return index.Listed{RKey: rkey, Body: body}
}

// TestIndexNeedsNoJob has readings, an account's end and a deletion applied by somebody who
// keeps no books.
func TestIndexNeedsNoJob(t *testing.T) {
	t.Parallel()
	x, db := open(t)
	apply := func(c index.Change) (index.Applied, error) {
		c.DID = alice
		return kv.Write(t.Context(), db, kv.Change{Op: "apply", Urgent: true}, func(tx *kv.Tx) (index.Applied, error) { return x.Apply(tx, c) })
	}
	reading := func(rev syntax.TID, records ...index.Listed) index.Change {
		return index.Change{
			Reading: index.Reading{
				Host: "https://pds.test", Rev: rev, Source: index.SourceListRecords,
				Segments: []index.Segment{{Collection: note, Records: records}},
			},
			Complete: []syntax.NSID{note}, Floor: rev, Exact: true, Account: index.AccountActive,
		}
	}
	const earlier, later = syntax.TID("3kaaaaaaaaa22"), syntax.TID("3kbbbbbbbbb22")
	for _, step := range []struct {
		name   string
		change index.Change
		want   index.Tally
		err    error
		served int64
	}{
		{"a complete reading", reading(later, listed(t, "b", 2), listed(t, "a", 1)), index.Tally{Records: 2, Created: 2}, nil, 2},
		{"the same again", reading(later, listed(t, "b", 2), listed(t, "a", 1)), index.Tally{Records: 2}, nil, 2},
		{"an older one", reading(earlier, listed(t, "a", 1)), index.Tally{}, index.ErrRevWentBack, 2},
		{"one that lacks a record", reading(later, listed(t, "a", 1)), index.Tally{Records: 1, Deleted: 1}, nil, 1},
		{"a word on the account", index.Change{Account: index.AccountDeactivated}, index.Tally{}, nil, 0},
		{"a step of a reading that was begun before", index.Change{Account: index.AccountActive, Continues: true}, index.Tally{}, index.ErrUndone, 0},
		{"the account is back", index.Change{Account: index.AccountActive}, index.Tally{}, nil, 1},
		{"a deletion", index.Change{Delete: map[syntax.NSID][]syntax.RecordKey{note: {"a", "b"}}}, index.Tally{Deleted: 1}, nil, 0},
	} {
		got, err := apply(step.change)
		if got.Tally != step.want || !errors.Is(err, step.err) {
			t.Errorf("%s: %+v, %v, want %+v, %v", step.name, got.Tally, err, step.want, step.err)
		}
		n, err := kv.Read(t.Context(), db, func(tx *kv.Tx) (index.Count, error) { return index.CountOf(tx, note) })
		if err != nil || n.Records != step.served {
			t.Errorf("%s: %d records are served, want %d, %v", step.name, n.Records, step.served, err)
		}
	}
}
