package index

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
	"appview/store/kv/kvtest"
)

const sampleDID = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")

var sampleRepo = Repo{
	DID: sampleDID, Host: "https://a.test", Account: AccountActive, Floor: "3kgk4qs6aa22a",
	Collections: map[syntax.NSID]Held{"com.example.note": {Floor: "3kgk4qs6aa22a", Count: 3}, "com.example.other": {Count: 1}},
}

// sampleRows are rows of every table.
func sampleRows(tb testing.TB) []kvtest.Row {
	tb.Helper()
	at, did := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), []byte(sampleDID)
	return []kvtest.Row{
		kvtest.Sample(tb, repos, ridKey(7), sampleRepo),
		kvtest.Sample(tb, repos, ridKey(8), Repo{DID: "did:web:b.test", Account: AccountDeactivated, NotFoundAt: at}),
		kvtest.Sample(tb, counts, []byte("com.example.note"), Count{Records: 10, Repos: 3}),
		kvtest.Sample(tb, denials, did, Denial{Reason: "spam", AddedAt: at}),
		kvtest.Sample(tb, purges, kv.NumberKey(1), purgeRow{Filter: Filter{DID: sampleDID}, Seq: 9, After: []byte("x")}),
	}
}

func TestChangedRowOfATableIsNoticed(t *testing.T) {
	t.Parallel()
	tables := map[string]bool{}
	for _, r := range sampleRows(t) {
		tables[r.Table] = true
		kvtest.WantChangesNoticed(t, r)
	}
	for _, d := range decoders() {
		if !tables[d.Table] {
			t.Errorf("no row of %s: the test tests too little", d.Table)
		}
	}
}

// TestRowOfATableWithoutSealIsRead has rows as they were before there were checksums,
// which say nothing of their key.
func TestRowOfATableWithoutSealIsRead(t *testing.T) {
	t.Parallel()
	for _, r := range sampleRows(t) {
		kvtest.WantPlainRead(t, r)
	}
}

// TestChangedRowOfARepoIsNoticed changes every bit of a repo's row, and of the number
// that its DID leads to. Whoever asks for the repo is told so.
func TestChangedRowOfARepoIsNoticed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	file, err := kv.Open(kv.Config{Path: path}, kv.Join(10, New(0).Part()))
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	const n = rid(6)
	asks := map[string]func(tx *kv.Tx) (syntax.DID, error){
		"account": func(tx *kv.Tx) (syntax.DID, error) {
			_, status, err := accountOf(tx, sampleDID)
			return syntax.DID(status), err
		},
		"change": func(tx *kv.Tx) (syntax.DID, error) {
			r, err := (&group{tx: tx}).repo(sampleDID)
			if err != nil {
				return "", err
			}
			return r.repo.DID, nil
		},
		"record": func(tx *kv.Tx) (syntax.DID, error) {
			o, err := newOwners(tx).of(recordKey(n, "x"))
			return o.did, err
		},
	}
	want := map[string]syntax.DID{"account": AccountActive, "change": sampleDID, "record": sampleDID}
	errUndo := errors.New("never to be committed")
	err = db.Update(func(in *bbolt.Tx) error {
		tx := &kv.Tx{Tx: in}
		row, err := repos.Encode(ridKey(n), sampleRepo)
		if err != nil {
			return err
		}
		put := func(dids, row []byte) {
			t.Helper()
			if err := errors.Join(tx.Bucket([]byte(didsBucket)).Put([]byte(sampleDID), dids), repos.Bucket(tx).Put(ridKey(n), row)); err != nil {
				t.Fatal(err)
			}
		}
		for other := range rid(40) { // so that most numbers that are a bit away lead to a repo
			if err := repos.Put(repos.Bucket(tx), ridKey(other), Repo{DID: "did:web:b.test", Account: AccountActive}); err != nil {
				return err
			}
		}
		put(ridKey(n), row)
		for name, ask := range asks {
			if got, err := ask(tx); err != nil || got != want[name] {
				t.Fatalf("%s: %s, %v", name, got, err)
			}
		}
		for bit, changed := range kvtest.Flips(row) {
			put(ridKey(n), changed)
			for name, ask := range asks {
				if got, err := ask(tx); !errors.Is(err, kv.ErrRow) {
					t.Errorf("%s: %s of the row has changed: %q, %v", name, bit, got, err)
				}
			}
		}
		delete(asks, "record") // which does not ask by DID
		for bit, led := range kvtest.Flips(ridKey(n)) {
			put(led, row)
			for _, name := range slices.Sorted(maps.Keys(asks)) {
				if got, err := asks[name](tx); !errors.Is(err, kv.ErrRow) || errors.Is(err, kv.ErrNotFound) {
					t.Errorf("%s: %s of the number has changed: %q, %v", name, bit, got, err)
				}
			}
		}
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		t.Fatal(err)
	}
}

// TestChangedMarkIsNoticed changes the mark of a listed record, bit by bit: without it
// the record would be deleted.
func TestChangedMarkIsNoticed(t *testing.T) {
	t.Parallel()
	m := markWalk{name: marksKey(sampleDID, "com.example.note")}
	row := kv.Seal(markKey(m.name, []byte("x")), nil)
	if err := m.check([]byte("x"), row); err != nil {
		t.Error(err)
	}
	for bit, changed := range kvtest.Flips(row) {
		if err := m.check([]byte("x"), changed); !errors.Is(err, kv.ErrRow) {
			t.Errorf("%s of the row has changed: %v", bit, err)
		}
	}
	for bit, other := range kvtest.Flips([]byte("x")) {
		if err := m.check(other, row); !errors.Is(err, kv.ErrRow) {
			t.Errorf("%s of the key has changed: %v", bit, err)
		}
	}
}

// TestChangedTombstoneIsNoticed changes every bit of a row and every byte of its key.
func TestChangedTombstoneIsNoticed(t *testing.T) {
	t.Parallel()
	key, want := recordKey(7, "self"), tombstone{rev: 1 << 41, seq: 9}
	row := want.encode(key)
	if got, err := parseTombstone(key, row); err != nil || got != want || len(row) != tombstoneLen {
		t.Fatalf("read back: %+v, %v", got, err)
	}
	for bit, changed := range kvtest.Flips(row) {
		if _, err := parseTombstone(key, changed); !errors.Is(err, kv.ErrRow) {
			t.Errorf("%s has changed: %v", bit, err)
		}
	}
	for i := range key {
		other := bytes.Clone(key)
		other[i] ^= 1
		if _, err := parseTombstone(other, row); !errors.Is(err, kv.ErrRow) {
			t.Errorf("byte %d of the key has changed: %v", i, err)
		}
	}
}
