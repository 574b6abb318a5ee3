package stream_test

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/coder/websocket"

	"appview/internal/sandbox"
	"appview/internal/sandbox/stream"
)

// manual is a clock that the test moves.
type manual struct{ micros atomic.Int64 }

func newManual() *manual {
	m := &manual{}
	m.micros.Store(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).UnixMicro())
	return m
}

func (m *manual) now() time.Time          { return time.UnixMicro(m.micros.Load()) }
func (m *manual) advance(d time.Duration) { m.micros.Add(d.Microseconds()) }

// two are two instances with clocks and numberings of their own, and a legacy one.
func two() []stream.Jetstream {
	return []stream.Jetstream{{}, {Skew: -10 * time.Minute, FirstSeq: 5000}, {Legacy: true}}
}

func mutate(t *testing.T, w *sandbox.World, rng *rand.Rand, n int) {
	t.Helper()
	for range n {
		if _, err := w.Mutate(rng); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBothShapesOfAJetstreamTellTheTruth(t *testing.T) {
	t.Parallel()
	clock := newManual()
	w, s := start(t, 20, stream.Config{Now: clock.now, Jetstreams: two()})
	first, second, third := map[string]string{}, map[string]string{}, map[string]string{}
	for uri, r := range w.Truth() {
		first[uri], second[uri], third[uri] = r.CID, r.CID, r.CID
	}
	began := clock.now()
	mutate(t, w, rand.New(rand.NewPCG(20, 20)), 200)
	apply := func(held map[string]string, did, collection, rkey, operation, cid string) {
		uri := "at://" + did + "/" + collection + "/" + rkey
		if delete(held, uri); operation != "delete" {
			held[uri] = cid
		}
	}
	last, _ := s.Jetstream(0).Position()
	c := dial(t, s.Jetstream(0), stream.PathV2, "cursor", "1")
	for seq := int64(1); seq <= last; seq++ {
		e := c.v2()
		if e.Seq != seq || e.Type != "network.bsky.jetstream.subscribeEvents#commit" || e.Time.Before(began) {
			t.Fatalf("%+v instead of %d", e, seq)
		}
		apply(first, e.DID, e.Collection, e.RKey, e.Operation, e.CID)
	}
	differ(t, first, w)
	c = dial(t, s.Jetstream(1), stream.PathV1, "cursor", "5000")
	for seq := int64(5000); seq < 5000+last; seq++ {
		e := c.v1()
		if e.Cursor != seq || e.Kind != "commit" || e.TimeUS >= began.UnixMicro() {
			t.Fatalf("%+v instead of %d", e, seq)
		}
		apply(second, e.DID, e.Commit.Collection, e.Commit.RKey, e.Commit.Operation, e.Commit.CID)
	}
	differ(t, second, w)
	c = dial(t, s.Jetstream(2), stream.PathV1, "cursor", strconv.FormatInt(began.UnixMicro(), 10))
	for range last {
		e := c.v1()
		if e.Cursor != 0 {
			t.Fatalf("a legacy server has seqs: %+v", e)
		}
		apply(third, e.DID, e.Commit.Collection, e.Commit.RKey, e.Commit.Operation, e.Commit.CID)
	}
	differ(t, third, w)
	if _, status, err := tryDial(t, s.Jetstream(2), stream.PathV2); err == nil || status != http.StatusNotFound {
		t.Errorf("a legacy server has v2: %d %v", status, err)
	}
}

func TestFiltersOfAJetstream(t *testing.T) {
	t.Parallel()
	w, s := start(t, 21, stream.Config{Jetstreams: two()})
	did, other := w.Repos()[0].DID, w.Repos()[1].DID
	create := func(did syntax.DID, collection syntax.NSID) {
		t.Helper()
		if _, err := w.Create(did, collection, "", note("x")); err != nil {
			t.Fatal(err)
		}
	}
	notes := dial(t, s.Jetstream(0), stream.PathV2, "collections", "com.example.*")
	commits := dial(t, s.Jetstream(0), stream.PathV2, "collections", sandbox.StatusCollection.String(), "kinds", "commit")
	mine := dial(t, s.Jetstream(0), stream.PathV2, "dids", did.String())
	v1 := dial(t, s.Jetstream(0), stream.PathV1, "wantedCollections", sandbox.StatusCollection.String())
	create(other, sandbox.StatusCollection)
	if e := v1.v1(); e.Commit.Collection != sandbox.StatusCollection.String() {
		t.Errorf("v1: %+v", e)
	}
	update := `{"type":"options_update","payload":{"wantedCollections":["com.example.note"]}}`
	if err := v1.conn.Write(v1.ctx, websocket.MessageText, []byte(update)); err != nil {
		t.Fatal(err)
	}
	create(did, sandbox.NoteCollection)
	if err := w.Deactivate(other); err != nil {
		t.Fatal(err)
	}
	create(did, sandbox.StatusCollection)
	if _, err := w.Resync(did, []sandbox.Write{{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, Value: note("y")}}); err != nil {
		t.Fatal(err)
	}
	if one, two, three := notes.v2(), notes.v2(), notes.v2(); one.Collection != "com.example.note" || two.Account.Active || two.Account.Status != "deactivated" || three.Sync.Rev == "" {
		t.Errorf("notes: %+v, %+v, %+v", one, two, three)
	}
	if one, two := commits.v2(), commits.v2(); one.DID != other.String() || two.DID != did.String() {
		t.Errorf("commits: %+v, %+v", one, two)
	}
	if one, two := mine.v2(), mine.v2(); one.Collection != "com.example.note" || two.Collection != sandbox.StatusCollection.String() {
		t.Errorf("mine: %+v, %+v", one, two)
	}
	rows := 0
	for e := mine.v2(); rows < len(w.TruthOf(did))-1; e = mine.v2() {
		if e.Type == "network.bsky.jetstream.subscribeEvents#commit" {
			rows++
		}
	}
	for _, bad := range [][]string{{"wantedCollections", "a.b.c"}, {"kinds", "identity", "collections", "a.b.c"}, {"kinds", "other"}, {"cursor", "x"}} {
		if _, status, err := tryDial(t, s.Jetstream(0), stream.PathV2, bad...); err == nil || status != http.StatusBadRequest {
			t.Errorf("%v: %d %v", bad, status, err)
		}
	}
	if err := mine.conn.Write(mine.ctx, websocket.MessageText, []byte(update)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, err := mine.conn.Read(mine.ctx); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("a v2 client that speaks: %v", err)
			}
			return
		}
	}
}

func TestCursorsOfAJetstream(t *testing.T) {
	t.Parallel()
	clock := newManual()
	w, s := start(t, 22, stream.Config{Now: clock.now, Jetstreams: two()})
	rng := rand.New(rand.NewPCG(22, 22))
	j := s.Jetstream(0)
	mutate(t, w, rng, 10)
	clock.advance(37 * time.Hour)
	middle := clock.now()
	mutate(t, w, rng, 10)
	micros := func(at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }

	if _, status, err := tryDial(t, j, stream.PathV2, "cursor", "3"); err == nil || status != http.StatusBadRequest {
		t.Errorf("a seq that is too old: %d %v", status, err)
	}
	if e := dial(t, j, stream.PathV2, "cursor", "11").v2(); e.Seq != 11 {
		t.Errorf("cursor 11 begins at %d", e.Seq)
	}
	c := dial(t, j, stream.PathV2, "cursor", micros(middle.Add(-40*time.Hour)))
	if info, e := c.v2(), c.v2(); info.Name != "OutdatedCursor" || e.Seq != 11 {
		t.Errorf("a time that is too old: %+v, then %d", info, e.Seq)
	}
	if e := dial(t, j, stream.PathV1, "cursor", micros(middle.Add(-40*time.Hour))).v1(); e.Cursor != 11 {
		t.Errorf("v1 begins at %d", e.Cursor)
	}
	tip := dial(t, j, stream.PathV2, "cursor", "21")
	future := dial(t, j, stream.PathV1, "cursor", micros(clock.now().Add(time.Hour)))
	past := dial(t, j, stream.PathV2, "cursor", "1000")
	mutate(t, w, rng, 1)
	if one, two, three := tip.v2(), future.v1(), past.v2(); one.Seq != 21 || two.Cursor != 21 || three.Seq != 21 {
		t.Errorf("at the tip and past it: %d, %d, %d", one.Seq, two.Cursor, three.Seq)
	}
	// A time in the segment that is being written begins at that segment.
	j.Seal()
	clock.advance(time.Minute)
	mutate(t, w, rng, 5)
	clock.advance(time.Minute)
	if e := dial(t, j, stream.PathV2, "cursor", micros(clock.now())).v2(); e.Seq != 22 {
		t.Errorf("a time behind the sealed segments begins at %d", e.Seq)
	}
}

func TestCompactionLeavesMarkers(t *testing.T) {
	t.Parallel()
	w, s := start(t, 23, stream.Config{Jetstreams: two()})
	one, two := w.Repos()[0].DID, w.Repos()[1].DID
	for _, did := range []syntax.DID{one, two} {
		if _, err := w.Create(did, sandbox.NoteCollection, "k", note("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Update(did, sandbox.NoteCollection, "k", note("b")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Delete(one, sandbox.NoteCollection, "k"); err != nil {
		t.Fatal(err)
	}
	s.Jetstream(0).Compact()
	c := dial(t, s.Jetstream(0), stream.PathV2, "cursor", "1")
	if first, second := c.v2(), c.v2(); first.DID != two.String() || first.Operation != "update" || second.Operation != "delete" || second.Seq != 5 {
		t.Errorf("%+v, %+v", first, second)
	}
}
