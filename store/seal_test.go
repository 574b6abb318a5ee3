package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// sampleRow is a row of a table, without its type.
type sampleRow struct {
	name   string
	key    []byte
	row    []byte
	before []byte // as the formats before had it
	read   func(key, row []byte) (same bool, err error)
}

func sample[V any](tb testing.TB, t table[V], key []byte, v V) sampleRow {
	tb.Helper()
	row, err := t.encode(key, v)
	if err != nil {
		tb.Fatal(err)
	}
	before := bytes.Clone(row[:len(row)-sealLen])
	before[0] = t.version
	return sampleRow{t.name, key, row, before, func(key, row []byte) (bool, error) {
		got, err := t.decode(key, row)
		return reflect.DeepEqual(got, v), err
	}}
}

const sampleDID = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")

var sampleRepo = Repo{
	DID: sampleDID, Host: "https://a.test", Account: AccountActive, Floor: "3kgk4qs6aa22a",
	Collections: map[syntax.NSID]Held{"com.example.note": {Floor: "3kgk4qs6aa22a", Count: 3}, "com.example.other": {Count: 1}},
}

// sampleRows are rows of every table.
func sampleRows(tb testing.TB) []sampleRow {
	tb.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	host, did := []byte("https://a.test"), []byte(sampleDID)
	return []sampleRow{
		sample(tb, repos, ridKey(7), sampleRepo),
		sample(tb, repos, ridKey(8), Repo{DID: "did:web:b.test", Account: AccountDeactivated, NotFoundAt: at}),
		sample(tb, counts, []byte("com.example.note"), Count{Records: 10, Repos: 3}),
		sample(tb, jobs, u64Key(3), Job{ID: uuid.Max, Seq: 3, Status: StatusRunning, Stage: StagePending, CreatedAt: at, Targets: []syntax.NSID{"com.example.note"}}),
		sample(tb, workRepos, did, WorkRepo{State: RepoSettled, Class: ClassFailed, Reason: "timeout", Host: "https://a.test"}),
		sample(tb, workRepos, did, WorkRepo{}),
		sample(tb, owedRows, owedKey("https://a.test", sampleDID), Owed{Attempts: 2, NotBefore: at}),
		sample(tb, cursors, []byte("com.example.note"), Cursor{Cursor: "123", Pages: 2}),
		sample(tb, hostRows, host, HostWork{Behaviour: Behaviour{Probes: 1, NextProbe: at}}),
		sample(tb, apiKeys, bytes.Repeat([]byte{0xa5}, 32), APIKey{ID: uuid.Max, Name: "k", CreatedAt: at}),
		sample(tb, collections, []byte("com.example.note"), trackedRow{AddedAt: at}),
		sample(tb, denials, did, Denial{Reason: "spam", AddedAt: at}),
		sample(tb, distrusted, host, distrust{At: at}),
		sample(tb, freshness, freshnessKey(""), Freshness{Last: 3}),
		sample(tb, pauses, host, json.RawMessage(`{"until":"2026-01-02T03:04:05Z"}`)),
		sample(tb, purges, u64Key(1), purgeRow{Filter: Filter{DID: sampleDID}, Seq: 9, After: []byte("x")}),
		sample(tb, totals, []byte(totalsKey), Totals{}),
		sample(tb, events, u64Key(1), Event{At: at, Action: ActDeny, Target: string(sampleDID), Detail: "spam"}),
	}
}

// flips gives data with each of its bits changed in turn, and says which.
func flips(data []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := range 8 * len(data) {
			changed := bytes.Clone(data)
			changed[i/8] ^= 1 << (i % 8)
			if !yield(fmt.Sprintf("bit %d of byte %d", i%8, i/8), changed) {
				return
			}
		}
	}
}

// TestChangedRowOfATableIsNoticed changes every bit of a row of every table and of the
// key that it stands under: it is never read as another row, or as one of before there
// were seals. What follows the JSON in a sealed row is no part of such a row.
func TestChangedRowOfATableIsNoticed(t *testing.T) {
	t.Parallel()
	tables := map[string]bool{}
	for _, s := range sampleRows(t) {
		tables[s.name] = true
		if same, err := s.read(s.key, s.row); !same || err != nil {
			t.Fatalf("%s: read back: the same %t, %v", s.name, same, err)
		}
		for bit, changed := range flips(s.row) {
			if same, err := s.read(s.key, changed); !errors.Is(err, errRow) {
				t.Errorf("%s: %s of the row has changed: %v, the same %t", s.name, bit, err, same)
			}
		}
		for bit, other := range flips(s.key) {
			if same, err := s.read(other, s.row); !errors.Is(err, errRow) {
				t.Errorf("%s: %s of the key has changed: %v, the same %t", s.name, bit, err, same)
			}
		}
		for n := range s.row {
			if same, err := s.read(s.key, s.row[:n]); !errors.Is(err, errRow) {
				t.Errorf("%s: cut to %d bytes: %v, the same %t", s.name, n, err, same)
			}
		}
		asBefore := bytes.Clone(s.row)
		asBefore[0] = s.before[0]
		if same, err := s.read(s.key, asBefore); !errors.Is(err, errRow) {
			t.Errorf("%s: the seal is taken for JSON: %v, the same %t", s.name, err, same)
		}
	}
	for _, d := range decoders() {
		if !tables[d.name] {
			t.Errorf("no row of %s: the test tests too little", d.name)
		}
	}
}

// TestRowOfATableWithoutSealIsRead has rows as they were before there were seals, which
// say nothing of their key.
func TestRowOfATableWithoutSealIsRead(t *testing.T) {
	t.Parallel()
	for _, s := range sampleRows(t) {
		if same, err := s.read(s.key, s.before); !same || err != nil {
			t.Errorf("%s: the same %t, %v", s.name, same, err)
		}
	}
}

// TestChangedRowOfARepoIsNoticed changes every bit of a repo's row, and of the number
// that its DID leads to. Whoever asks for the repo is told so.
func TestChangedRowOfARepoIsNoticed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := Open(Config{Path: path})
	if err == nil {
		err = s.Close()
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
	asks := map[string]func(tx *bbolt.Tx) (syntax.DID, error){
		"account": func(tx *bbolt.Tx) (syntax.DID, error) {
			_, status, err := accountOf(tx, sampleDID)
			return syntax.DID(status), err
		},
		"change": func(tx *bbolt.Tx) (syntax.DID, error) {
			r, err := (&group{tx: tx}).repo(sampleDID)
			if err != nil {
				return "", err
			}
			return r.repo.DID, nil
		},
		"record": func(tx *bbolt.Tx) (syntax.DID, error) {
			o, err := newOwners(tx).of(recordKey(n, "x"))
			return o.did, err
		},
	}
	want := map[string]syntax.DID{"account": AccountActive, "change": sampleDID, "record": sampleDID}
	errUndo := errors.New("never to be committed")
	err = db.Update(func(tx *bbolt.Tx) error {
		row, err := repos.encode(ridKey(n), sampleRepo)
		if err != nil {
			return err
		}
		put := func(dids, row []byte) {
			t.Helper()
			if err := errors.Join(tx.Bucket([]byte(didsBucket)).Put([]byte(sampleDID), dids), repos.bucket(tx).Put(ridKey(n), row)); err != nil {
				t.Fatal(err)
			}
		}
		for other := range rid(40) { // so that most numbers that are a bit away lead to a repo
			if err := repos.put(repos.bucket(tx), ridKey(other), Repo{DID: "did:web:b.test", Account: AccountActive}); err != nil {
				return err
			}
		}
		put(ridKey(n), row)
		for name, ask := range asks {
			if got, err := ask(tx); err != nil || got != want[name] {
				t.Fatalf("%s: %s, %v", name, got, err)
			}
		}
		for bit, changed := range flips(row) {
			put(ridKey(n), changed)
			for name, ask := range asks {
				if got, err := ask(tx); !errors.Is(err, errRow) {
					t.Errorf("%s: %s of the row has changed: %q, %v", name, bit, got, err)
				}
			}
		}
		delete(asks, "record") // which does not ask by DID
		for bit, led := range flips(ridKey(n)) {
			put(led, row)
			for _, name := range slices.Sorted(maps.Keys(asks)) {
				if got, err := asks[name](tx); !errors.Is(err, errRow) || errors.Is(err, ErrNotFound) {
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
	m := marks{name: marksKey(sampleDID, "com.example.note")}
	row := appendSeal(markKey(m.name, []byte("x")), nil)
	if err := m.check([]byte("x"), row); err != nil {
		t.Error(err)
	}
	for bit, changed := range flips(row) {
		if err := m.check([]byte("x"), changed); !errors.Is(err, errRow) {
			t.Errorf("%s of the row has changed: %v", bit, err)
		}
	}
	for bit, other := range flips([]byte("x")) {
		if err := m.check(other, row); !errors.Is(err, errRow) {
			t.Errorf("%s of the key has changed: %v", bit, err)
		}
	}
}
