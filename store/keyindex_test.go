package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
	"appview/store"
	"appview/store/storetest"
)

// model is what the index should hold, kept in memory.
type model struct {
	values map[record.URI]string
	order  map[record.URI]int // of the last change
	off    map[syntax.DID]bool
	clock  int
}

func (m *model) served(c syntax.NSID) (uris []record.URI) {
	for uri := range m.values {
		if uri.Collection == c && !m.off[uri.DID] {
			uris = append(uris, uri)
		}
	}
	return uris
}

// TestEveryOrderEqualsTheModel makes random readings of repos, turns accounts off
// and on, deletes records by request, brings the key index up to date at random,
// and reopens the file; after each step every page of every order must equal the
// model.
func TestEveryOrderEqualsTheModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			path := filepath.Join(t.TempDir(), "appview.db")
			open := func() *bench {
				s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				return &bench{t: t, s: s}
			}
			b := open()
			defer func() {
				if err := b.s.Close(); err != nil {
					t.Error(err)
				}
				storetest.Check(t, path)
			}()
			m := &model{values: map[record.URI]string{}, order: map[record.URI]int{}, off: map[syntax.DID]bool{}}
			for step := range 60 {
				b.again()
				did := syntax.DID(fmt.Sprintf("did:plc:repo%d", rng.IntN(6)))
				switch n := rng.IntN(10); {
				case n < 6:
					m.read(b, did, rev(step+1), rng)
				case n < 7:
					m.turnOff(b, did)
				case n < 8:
					m.delete(b, did, rng)
				case n < 9:
					if _, err := b.s.IndexKeys(t.Context(), note); err != nil {
						t.Fatal(err)
					}
				default:
					if err := b.s.Close(); err != nil {
						t.Fatal(err)
					}
					b = open()
				}
				m.compare(b, 1+rng.IntN(5))
				if t.Failed() {
					t.Fatalf("after step %d", step)
				}
			}
		})
	}
}

// read makes up what a repo holds, and has it read.
func (m *model) read(b *bench, did syntax.DID, at syntax.TID, rng *rand.Rand) {
	var segments []store.Segment
	for _, c := range []syntax.NSID{note, other} {
		seg := store.Segment{Collection: c}
		for i := 9; i >= 0; i-- {
			uri := record.URI{DID: did, Collection: c, RKey: syntax.RecordKey(fmt.Sprintf("k%d", i))}
			was, had := m.values[uri]
			value := was
			if !had || rng.IntN(4) == 0 {
				value = fmt.Sprint(rng.IntN(1000))
			}
			if rng.IntN(3) == 0 {
				delete(m.values, uri)
				continue
			}
			m.values[uri] = value
			seg.Records = append(seg.Records, listed(b.t, string(uri.RKey), value))
		}
		// They are written from the lowest key up.
		for _, l := range slices.Backward(seg.Records) {
			uri := record.URI{DID: did, Collection: c, RKey: l.RKey}
			if before, err := b.s.Record(b.t.Context(), uri); err != nil || before.Body.CID != l.Body.CID {
				m.clock++
				m.order[uri] = m.clock
			}
		}
		segments = append(segments, seg)
	}
	delete(m.off, did)
	b.mustRead(did, at, segments...)
}

func (m *model) turnOff(b *bench, did syntax.DID) {
	s := settlement(did, "")
	s.Account, s.Complete = "deactivated", nil
	b.owe(did)
	b.must(func(done func(error)) error { return b.s.Settle(b.t.Context(), b.job.Seq, s, done) })
	m.off[did] = true
}

func (m *model) delete(b *bench, did syntax.DID, rng *rand.Rand) {
	f := store.Filter{DID: did}
	if rng.IntN(2) == 0 {
		f = store.Filter{DID: did, Collection: note}
	}
	var want int64
	for uri := range m.values {
		if uri.DID == f.DID && (f.Collection == "" || uri.Collection == f.Collection) {
			delete(m.values, uri)
			want++
		}
	}
	if n, err := b.s.DeleteRecords(b.t.Context(), f); err != nil || n != want {
		b.t.Fatalf("delete %+v: %d, %v; want %d", f, n, err, want)
	}
}

// compare reads every page of every order.
func (m *model) compare(b *bench, limit int) {
	b.t.Helper()
	for _, c := range []syntax.NSID{note, other} {
		want := m.served(c)
		slices.SortFunc(want, func(x, y record.URI) int { return m.order[y] - m.order[x] })
		m.same(b, c, "newest indexed", newest(b, c, limit), want, false)
		slices.SortFunc(want, func(x, y record.URI) int { return strings.Compare(string(y.RKey), string(x.RKey)) })
		m.same(b, c, "by key", byKey(b, c, limit), want, true)
	}
	got := export(b.t, b.s)
	want := len(m.served(note)) + len(m.served(other))
	if len(got) != want {
		b.t.Errorf("export has %d records, want %d", len(got), want)
	}
	wantRecords(b.t, b.s, int64(want))
}

// same compares an order with the model's; where keysOnly, repos with the same
// record key may come in any order.
func (m *model) same(b *bench, c syntax.NSID, what string, got []store.Record, want []record.URI, keysOnly bool) {
	b.t.Helper()
	if len(got) != len(want) {
		b.t.Errorf("%s of %s: %d records, want %d", what, c, len(got), len(want))
		return
	}
	seen := map[record.URI]bool{}
	for i, r := range got {
		if r.URI() != want[i] && (!keysOnly || r.RKey != want[i].RKey) {
			b.t.Errorf("%s of %s: record %d is %s, want %s", what, c, i, r.URI(), want[i])
		}
		if body(b.t, m.values[r.URI()]).CID != r.Body.CID || seen[r.URI()] {
			b.t.Errorf("%s of %s: %s has another value, or came twice", what, c, r.URI())
		}
		seen[r.URI()] = true
	}
}

func newest(b *bench, c syntax.NSID, limit int) (all []store.Record) {
	b.t.Helper()
	for below := uint64(0); ; {
		list, next, err := b.s.Newest(b.t.Context(), c, below, limit)
		if err != nil {
			b.t.Fatal(err)
		}
		if all = append(all, list...); next == 0 {
			return all
		}
		below = next
	}
}

func byKey(b *bench, c syntax.NSID, limit int) (all []store.Record) {
	b.t.Helper()
	for below := (*store.KeyPlace)(nil); ; {
		list, next, err := b.s.ByKey(b.t.Context(), c, below, limit)
		if err != nil {
			b.t.Fatal(err)
		}
		if all = append(all, list...); next == nil {
			return all
		}
		below = next
	}
}

func TestCursorTakenBeforeAChangeGivesTheRestOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	var records []store.Listed
	for i := 20; i > 0; i-- {
		records = append(records, listed(t, fmt.Sprintf("k%02d", i), fmt.Sprint(i)))
	}
	b.mustRead(alice, rev(1), segment(note, records...))
	first, next, err := b.s.ByKey(t.Context(), note, nil, 8)
	if err != nil || len(first) != 8 || next == nil {
		t.Fatalf("first page: %d records, next %v, %v", len(first), next, err)
	}
	top, below, err := b.s.Newest(t.Context(), note, 0, 8)
	if err != nil || len(top) != 8 || below == 0 {
		t.Fatalf("first page: %d records, next %d, %v", len(top), below, err)
	}
	// Every fourth record goes or changes, and the index moves on.
	b.again()
	changed := map[syntax.RecordKey]bool{}
	var later []store.Listed
	for i, l := range records {
		switch i % 4 {
		case 0:
			changed[l.RKey] = true
		case 1:
			changed[l.RKey] = true
			later = append(later, store.Listed{RKey: l.RKey, Body: body(t, "new")})
		default:
			later = append(later, l)
		}
	}
	b.mustRead(alice, rev(2), segment(note, later...))
	if _, err := b.s.IndexKeys(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	rest, _, err := b.s.ByKey(t.Context(), note, next, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantUntouchedOnce(t, append(first, rest...), records, changed)
	rest, _, err = b.s.Newest(t.Context(), note, below, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantUntouchedOnce(t, append(top, rest...), records, changed)
}

func wantUntouchedOnce(t *testing.T, got []store.Record, all []store.Listed, changed map[syntax.RecordKey]bool) {
	t.Helper()
	times := map[syntax.RecordKey]int{}
	for _, r := range got {
		times[r.RKey]++
	}
	for _, l := range all {
		if !changed[l.RKey] && times[l.RKey] != 1 {
			t.Errorf("%s came %d times", l.RKey, times[l.RKey])
		}
	}
}

func TestDeletionSparesWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "z", "1")))
	if n, err := b.s.DeleteRecords(t.Context(), store.Filter{Collection: note}); err != nil || n != 3 {
		t.Fatalf("deleted %d, %v; want 3", n, err)
	}
	wantRecords(t, b.s, 1)
	b.again()
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	wantRecords(t, b.s, 3) // a job restores
	if _, err := b.s.DeleteRecords(t.Context(), store.Filter{}); err == nil {
		t.Error("a deletion without a filter is accepted")
	}
}

func TestRunKeepsTheKeyIndexUpToDate(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.s.Run(ctx) }()
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); ; {
		lag, err := b.s.IndexLag(t.Context(), note)
		if err != nil {
			t.Fatal(err)
		}
		if lag == 0 {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("the key index is still %d changes behind", lag)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
