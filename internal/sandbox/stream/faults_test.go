package stream_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/stream"
)

// TestEveryFaultFires carries out each fault of a Jetstream and looks at what a subscriber
// gets.
func TestEveryFaultFires(t *testing.T) {
	t.Parallel()
	clock := newManual()
	w, s := start(t, 30, stream.Config{Now: clock.now, Jetstreams: two()})
	rng := rand.New(rand.NewPCG(30, 30))
	j := s.Jetstream(0)
	c := dial(t, j, stream.PathV2)
	next := func() int64 { return c.v2().Seq }

	j.Drop(func(d stream.Dropped) bool { return d.Op.Op == sandbox.OpCreate })
	if _, err := w.Create(w.Repos()[0].DID, sandbox.NoteCollection, "k", note("a")); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(w.Repos()[0].DID, sandbox.NoteCollection, "k"); err != nil {
		t.Fatal(err)
	}
	if e := c.v2(); e.Seq != 1 || e.Operation != "delete" {
		t.Errorf("drop: %+v", e)
	}
	j.Drop(nil)

	j.Stall()
	mutate(t, w, rng, 1)
	type message struct {
		body []byte
		err  error
	}
	read := make(chan message, 1)
	go func() {
		_, b, err := c.conn.Read(c.ctx) // it reads the pong on its way
		read <- message{b, err}
	}()
	if err := c.conn.Ping(c.ctx); err != nil {
		t.Errorf("a source that stalls answers no pings: %v", err)
	}
	j.Resume()
	if m := <-read; m.err != nil || !strings.Contains(string(m.body), `"seq":2`) {
		t.Errorf("stall: %s %v", m.body, m.err)
	}

	j.Duplicate(1)
	mutate(t, w, rng, 1)
	if one, two := next(), next(); one != 3 || two != 3 {
		t.Errorf("duplicate: %d, %d", one, two)
	}
	j.Replay(time.Hour)
	for want := int64(1); want <= 3; want++ {
		if seq := next(); seq != want {
			t.Errorf("replay: %d instead of %d", seq, want)
		}
	}
	j.Raw(make([]byte, 9<<20))
	if b := c.read(); len(b) != 9<<20 {
		t.Errorf("raw: %d bytes", len(b))
	}
	j.Slow(time.Millisecond)
	mutate(t, w, rng, 1)
	if seq := next(); seq != 4 {
		t.Errorf("slow: %d", seq)
	}
	j.Slow(0)

	liar := sandbox.Event{Kind: sandbox.EventAccount, DID: w.Repos()[0].DID, Status: sandbox.StatusDeleted}
	if err := j.Forge(liar); err != nil {
		t.Fatal(err)
	}
	if e := c.v2(); e.Account.Status != "deleted" || e.Seq != 5 {
		t.Errorf("forge: %+v", e)
	}
	forged, err := sandbox.MakeEntry(liar.DID, sandbox.NoteCollection, "forged", note("forged"))
	if err != nil {
		t.Fatal(err)
	}
	lie := sandbox.Event{
		Kind: sandbox.EventCommit, DID: liar.DID, Head: &sandbox.Head{Rev: syntax.NewTIDFromTime(clock.now().Add(time.Hour), 0)},
		Ops: []sandbox.EventOp{{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, RKey: "forged", Entry: forged}},
	}
	if err := j.Forge(lie); err != nil {
		t.Fatal(err)
	}
	if e := c.v2(); e.RKey != "forged" || e.Rev != string(lie.Head.Rev) || len(e.Record) == 0 {
		t.Errorf("forge: %+v", e)
	}

	j.Cut(1)
	mutate(t, w, rng, 1)
	if _, _, err := c.conn.Read(c.ctx); err == nil {
		t.Error("cut: whole")
	}
	c = dial(t, j, stream.PathV2)
	j.Lose(3)
	if _, _, err := c.conn.Read(c.ctx); err == nil {
		t.Error("lose: still connected")
	}
	c = dial(t, j, stream.PathV2)
	mutate(t, w, rng, 1)
	if seq := next(); seq != 5 {
		t.Errorf("lose: %d", seq)
	}
	j.Renumber(20_000)
	c = dial(t, j, stream.PathV2)
	mutate(t, w, rng, 1)
	if seq := next(); seq != 20_000 {
		t.Errorf("renumber: %d", seq)
	}
	j.Refuse(true)
	if _, status, err := tryDial(t, j, stream.PathV2); err == nil || status != http.StatusServiceUnavailable {
		t.Errorf("refuse: %d %v", status, err)
	}
	for _, fault := range []string{"drop", "stall", "duplicate", "replay", "raw", "slow", "forge", "cut", "lose", "renumber", "refuse"} {
		if j.Faults(fault) == 0 {
			t.Errorf("%s did not fire", fault)
		}
	}
}

// TestVersionsAreWhatASourceHadRelayed holds the oracle against what is known to have
// happened.
func TestVersionsAreWhatASourceHadRelayed(t *testing.T) {
	t.Parallel()
	clock := newManual()
	w, s := start(t, 31, stream.Config{Now: clock.now, Jetstreams: two()})
	j := s.Jetstream(0)
	did := w.Repos()[0].DID
	uri := syntax.ATURI("at://" + did.String() + "/com.example.note/k")
	var cids []string
	step := func(do func() (string, error)) time.Time {
		t.Helper()
		clock.advance(time.Minute)
		cid, err := do()
		if err != nil {
			t.Fatal(err)
		}
		cids = append(cids, cid)
		return clock.now()
	}
	write := func(text string, op func(syntax.DID, syntax.NSID, syntax.RecordKey, map[string]any) (sandbox.Record, error)) func() (string, error) {
		return func() (string, error) {
			r, err := op(did, sandbox.NoteCollection, "k", note(text))
			return r.CID, err
		}
	}
	began := clock.now()
	if v, err := s.Versions(j, uri, began); v != nil || err != nil {
		t.Errorf("before anything happened: %v %v", v, err)
	}
	created := step(write("a", w.Create))
	updated := step(write("b", w.Update))
	hidden := step(func() (string, error) { return "", w.Deactivate(did) })
	shown := step(func() (string, error) { return "", w.Activate(did) })
	s.Hold(w.Repos()[0].Host)
	step(write("c", w.Update))
	a, b, c := cids[0], cids[1], cids[4]
	for _, test := range []struct {
		name   string
		source *stream.Source
		from   time.Time
		want   []string
	}{
		{"from the beginning", j, began, []string{"", a, b}},
		{"from its creation", j, created, []string{a, b, ""}},
		{"from its update", j, updated, []string{b, ""}},
		{"while it was hidden", j, hidden, []string{"", b}},
		{"since it came back", j, shown, []string{b}},
		{"in the world", nil, shown, []string{"", a, b, c}},
	} {
		got, err := s.Versions(test.source, uri, test.from)
		if err != nil || len(got) != len(test.want) {
			t.Errorf("%s: %v %v", test.name, got, err)
		}
		for _, cid := range test.want {
			if !got[cid] {
				t.Errorf("%s: %q is missing in %v", test.name, cid, got)
			}
		}
	}
	s.Release(w.Repos()[0].Host)
	if got, err := s.Versions(j, uri, clock.now()); err != nil || len(got) != 1 || !got[c] {
		t.Errorf("after the backlog: %v %v", got, err)
	}
}
