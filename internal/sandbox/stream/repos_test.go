package stream_test

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/coder/websocket"

	"appview/internal/sandbox"
	"appview/internal/sandbox/stream"
)

// TestIndigoVerifiesEveryCommit has indigo decode what hosts and relay send, undo its
// operations on the tree, and check its signature, and follows the chain of every account
// to what the world holds in the end.
func TestIndigoVerifiesEveryCommit(t *testing.T) {
	t.Parallel()
	w, s := start(t, 1, stream.Config{})
	held := map[string]string{}
	for uri, r := range w.Truth() {
		held[uri] = r.CID
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		if _, err := w.Mutate(rng); err != nil {
			t.Fatal(err)
		}
	}
	did := w.Repos()[0].DID
	if _, err := w.Apply(did, []sandbox.Write{
		{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, RKey: "aaa", Value: note("a")},
		{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, RKey: "zzz", Value: note("z")},
		{Op: sandbox.OpCreate, Collection: sandbox.StatusCollection, Value: note("s")},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Empty(w.Repos()[1].DID); err != nil {
		t.Fatal(err)
	}
	fresh, err := w.AddRepo("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Create(fresh, sandbox.NoteCollection, "", note("first")); err != nil {
		t.Fatal(err)
	}
	directory := identity.BaseDirectory{PLCURL: w.PLCURL(), HTTPClient: http.Client{}}
	last, _ := s.Relay().Position()
	c := dial(t, s.Relay(), subscribeRepos, "cursor", "0")
	type tip struct{ rev, data string }
	tips := map[string]tip{}
	for seq := int64(0); seq < last; {
		f := c.frame()
		if f.op != 1 || f.seq() != seq+1 {
			t.Fatalf("frame %d of %q behind %d", f.seq(), f.t, seq)
		}
		if seq++; f.t != "#commit" {
			continue
		}
		m := &f.commit
		if _, err := repo.VerifyCommitMessage(t.Context(), m); err != nil {
			t.Fatalf("commit %d of %s, %d ops: %v", m.Seq, m.Repo, len(m.Ops), err)
		}
		if before, ok := tips[m.Repo]; ok && (m.Since == nil || *m.Since != before.rev || m.PrevData.String() != before.data) {
			t.Errorf("commit %d of %s: no link to the one before", m.Seq, m.Repo)
		}
		commit, _, err := repo.LoadCommitFromCAR(t.Context(), strings.NewReader(string(m.Blocks)))
		if err != nil {
			t.Fatal(err)
		}
		document, err := directory.ResolveDID(t.Context(), syntax.DID(m.Repo))
		if err != nil {
			t.Fatal(err)
		}
		id := identity.ParseIdentity(document)
		key, err := id.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := commit.VerifySignature(key); err != nil {
			t.Errorf("commit %d of %s: %v", m.Seq, m.Repo, err)
		}
		tips[m.Repo] = tip{m.Rev, commit.Data.String()}
		for _, o := range m.Ops {
			uri := "at://" + m.Repo + "/" + o.Path
			if delete(held, uri); o.Cid != nil {
				held[uri] = o.Cid.String()
			}
		}
	}
	differ(t, held, w)
}

// differ compares what is held with the truth.
func differ(t *testing.T, held map[string]string, w *sandbox.World) {
	t.Helper()
	truth := w.Truth()
	if len(held) != len(truth) {
		t.Errorf("%d records are held, the truth has %d", len(held), len(truth))
	}
	for uri, r := range truth {
		if held[uri] != r.CID {
			t.Errorf("%s: %s is held instead of %s", uri, held[uri], r.CID)
		}
	}
}

func TestAccountsAndMovesAreToldByTheirHosts(t *testing.T) {
	t.Parallel()
	w, s := start(t, 2, stream.Config{})
	one := w.Repos()[0]
	var to string
	for _, url := range w.HostURLs() {
		if url != one.Host {
			to = url
		}
	}
	if err := w.CountRevs(to); err != nil {
		t.Fatal(err)
	}
	relay, old := dial(t, s.Relay(), subscribeRepos), dial(t, s.Host(one.Host), subscribeRepos)
	for _, step := range []func(syntax.DID) error{w.Deactivate, w.Activate, func(did syntax.DID) error { return w.Move(did, to) }} {
		if err := step(one.DID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Resync(one.DID, []sandbox.Write{{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, Value: note("unseen")}}); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteAccount(one.DID); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"#account deactivated", "#account active", "#identity", "#account active", "#commit", "#sync", "#account deleted"} {
		f := relay.frame()
		said := f.t
		switch {
		case f.t == "#account" && f.account.Active:
			said += " active"
		case f.t == "#account":
			said += " " + *f.account.Status
		case f.t == "#commit" && (f.commit.Rev >= string(one.Rev) || len(f.commit.Ops) > 0 || f.commit.PrevData == nil):
			t.Errorf("the commit of the new host: rev %s after %s, %d ops", f.commit.Rev, one.Rev, len(f.commit.Ops))
		}
		if said != want {
			t.Errorf("frame %d: %s instead of %s", i, said, want)
		}
	}
	old.frame()
	old.frame()
	if f := old.frame(); f.t != "#account" || f.account.Active || *f.account.Status != "deactivated" {
		t.Errorf("the old host says %s %+v", f.t, f.account)
	}
}

func TestCursorsOfARelay(t *testing.T) {
	t.Parallel()
	w, s := start(t, 3, stream.Config{Items: 10})
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		if _, err := w.Mutate(rng); err != nil {
			t.Fatal(err)
		}
	}
	at := func(cursor int64) frame {
		t.Helper()
		return dial(t, s.Relay(), subscribeRepos, "cursor", strconv.FormatInt(cursor, 10)).frame()
	}
	if f := at(15); f.seq() != 15 {
		t.Errorf("cursor 15 begins at %d", f.seq())
	}
	if f := at(0); f.seq() != 11 {
		t.Errorf("cursor 0 begins at %d, and 10 of 20 are remembered", f.seq())
	}
	if f := at(4); f.t != "#info" || f.info.Name != "OutdatedCursor" {
		t.Errorf("an outdated cursor is answered by %q %+v", f.t, f.info)
	}
	if f := at(1000); f.op != -1 || !strings.Contains(string(f.rest), "FutureCursor") {
		t.Errorf("a future cursor is answered by %d %q", f.op, f.rest)
	}
	s.Relay().Clamp(true)
	if f := at(4); f.seq() != 11 {
		t.Errorf("an outdated cursor is clamped to %d", f.seq())
	}
	live := dial(t, s.Relay(), subscribeRepos, "cursor", "1000")
	if _, err := w.Mutate(rng); err != nil {
		t.Fatal(err)
	}
	if f := live.frame(); f.seq() != 21 || s.Relay().Faults("clamp") != 2 {
		t.Errorf("a future cursor begins at %d; %d clamped", f.seq(), s.Relay().Faults("clamp"))
	}
	if _, status, err := tryDial(t, s.Relay(), subscribeRepos, "cursor", "x"); err == nil || status != http.StatusBadRequest {
		t.Errorf("a cursor that is none: %d %v", status, err)
	}
}

func TestBacklogOfAHostComesLate(t *testing.T) {
	t.Parallel()
	w, s := start(t, 4, stream.Config{})
	late, other := w.Repos()[0], w.Repos()[1]
	c := dial(t, s.Relay(), subscribeRepos)
	s.Hold(late.Host)
	for _, did := range []syntax.DID{late.DID, late.DID, other.DID} {
		if _, err := w.Create(did, sandbox.NoteCollection, "", note("x")); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.frame(); f.commit.Repo != other.DID.String() {
		t.Errorf("%s is relayed", f.commit.Repo)
	}
	s.Release(late.Host)
	first, second := c.frame(), c.frame()
	if first.commit.Repo != late.DID.String() || *second.commit.Since != first.commit.Rev || s.Relay().Faults("hold") != 2 {
		t.Errorf("backlog: %+v, then %+v", first.commit.Rev, second.commit.Rev)
	}
}

func TestSlowSubscriberIsSentAway(t *testing.T) {
	t.Parallel()
	w, s := start(t, 5, stream.Config{Items: 4})
	s.Relay().Stall()
	c := dial(t, s.Relay(), subscribeRepos)
	rng := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		if _, err := w.Mutate(rng); err != nil {
			t.Fatal(err)
		}
	}
	s.Relay().Resume()
	for {
		_, b, err := c.conn.Read(c.ctx)
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("it ends with %v", err)
			}
			return
		}
		if f, err := decode(b); err != nil || f.op == -1 && !strings.Contains(string(f.rest), "ConsumerTooSlow") {
			t.Errorf("%+v %v", f, err)
		}
	}
}
