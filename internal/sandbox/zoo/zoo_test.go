package zoo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

// askAll asks everything about a repo that a reader would, a bounded part of each answer.
func askAll(tb testing.TB, c *client, w *sandbox.World, did syntax.DID) map[string]string {
	tb.Helper()
	host := account(tb, w, did).Host
	said := make(map[string]string)
	for name, address := range map[string]string{
		"document": w.PLCURL() + "/" + did.String(),
		"list":     xrpc(host, listRecords, "repo", did.String(), "collection", sandbox.NoteCollection.String(), "limit", "100"),
		"car":      xrpc(host, getRepo, "did", did.String()),
		"status":   xrpc(host, getRepoStatus, "did", did.String()),
		"commit":   xrpc(host, getLatestCommit, "did", did.String()),
	} {
		ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Second)
		said[name] = c.some(ctx, address)
		cancel()
	}
	return said
}

// some is the status and the beginning of an answer, and whether it broke.
func (c *client) some(ctx context.Context, address string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err.Error()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "no answer"
	}
	defer func() { _ = resp.Body.Close() }()
	limit := int64(8 << 20)
	if resp.ContentLength < 0 && resp.Header.Get("Content-Type") == "application/json" {
		limit = 20 // a stream
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	broke := ""
	if err != nil {
		broke = " broke"
	}
	return resp.Status + " " + resp.Header.Get("Content-Type") + " " + resp.Header.Get("Location") + broke + " " + string(body)
}

func TestEveryBehaviourFiresAndEndsWhenItIsTakenAway(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, b := range append(zoo.All(), zoo.PrivateEndpoint()) {
		if names[b.Name] || b.Name == "" {
			t.Errorf("name %q twice", b.Name)
		}
		names[b.Name] = true
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			w := sandboxtest.Start(t, sandbox.Config{Seed: 60, Hosts: 1, Repos: 2, Collections: []sandbox.Collection{
				{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 30, MaxRecords: 30},
			}})
			c := newClient(t)
			subject, other := w.Repos()[0].DID, w.Repos()[1].DID
			before, beside := askAll(t, c, w, subject), askAll(t, c, w, other)
			w.Assign(subject, b)
			during := askAll(t, c, w, subject)
			if w.Faults(b.Name) == 0 || w.Faults("") != w.Faults(b.Name) {
				t.Errorf("%d faults of its name, %d in all", w.Faults(b.Name), w.Faults(""))
			}
			changed := 0
			for name, said := range during {
				if said != before[name] {
					changed++
				}
			}
			if changed == 0 && b.Name != "gzipped" && b.Name != "endless pages" { // these show elsewhere
				t.Error("nothing is different")
			}
			for name, said := range askAll(t, c, w, other) {
				if said != beside[name] {
					t.Errorf("%s of another repo is different: %.200s", name, said)
				}
			}
			w.Assign(subject, nil)
			for name, said := range askAll(t, c, w, subject) {
				if said != before[name] {
					t.Errorf("%s stays different: %.200s", name, said)
				}
			}
		})
	}
	if len(names) < 40 {
		t.Errorf("only %d behaviours", len(names))
	}
}

func TestTheTruthKnowsWhatABehaviourComesTo(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 61, Hosts: 2, Repos: 8, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 3, MaxRecords: 3},
	}})
	repos := w.Repos()
	want := func(i int, whole bool, class, reason string, collections ...syntax.NSID) {
		t.Helper()
		if got := zoo.Expected(w, repos[i].DID, whole, collections...); got != (zoo.Outcome{Class: class, Reason: reason}) {
			t.Errorf("repo %d: expected %+v, want %s %s", i, got, class, reason)
		}
	}
	want(0, false, "done", "exact")
	want(0, false, "done", "empty", sandbox.UnknownCollection)
	w.Assign(repos[0].DID, zoo.WrongCID())
	want(0, false, "done", "exact") // the CAR tells
	if got := zoo.ExpectedListed(w, repos[0].DID); got != (zoo.Outcome{Class: "failed", Reason: "rejected"}) {
		t.Errorf("without getRepo: %+v", got)
	}
	want(0, true, "done", "exact")
	want(0, false, "done", "empty", sandbox.UnknownCollection)
	w.Assign(repos[1].DID, zoo.WrongKey())
	want(1, false, "done", "exact")
	want(1, true, "failed", "bad_signature")
	w.AssignHost(repos[1].Host, zoo.ServerErrors())
	want(1, true, "failed", "bad_signature") // its own comes first
	want(3, true, "failed", "http_5xx")
	w.AssignHost(repos[1].Host, nil)
	want(3, true, "done", "exact")
	for i, step := range []func(syntax.DID) error{w.Deactivate, w.TakeDown, w.Suspend, w.DeleteAccount, w.Tombstone} {
		if err := step(repos[3+i].DID); err != nil {
			t.Fatal(err)
		}
		w.Assign(repos[3+i].DID, zoo.NoTID())
		want(3+i, i%2 == 0, "unavailable", []string{"deactivated", "taken_down", "suspended", "not_found", "tombstoned"}[i])
	}
	if _, err := w.Empty(repos[2].DID); err != nil {
		t.Fatal(err)
	}
	want(2, true, "done", "empty")
}

func TestScatterIsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 62, Hosts: 2, Repos: 200, Collections: []sandbox.Collection{}})
	one := zoo.Scatter(w, 7, 0.3, zoo.WrongCID(), zoo.NoTID())
	two := zoo.Scatter(w, 7, 0.3, zoo.WrongCID(), zoo.NoTID())
	if len(one) != len(two) || len(one) < 30 || len(one) > 90 {
		t.Fatalf("%d and %d of 200", len(one), len(two))
	}
	kinds := map[string]int{}
	for did, b := range one {
		kinds[b.Name]++
		if two[did].Name != b.Name {
			t.Errorf("%s: %q and %q", did, b.Name, two[did].Name)
		}
	}
	if len(kinds) != 2 {
		t.Errorf("kinds: %v", kinds)
	}
}

func TestHostileCARsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 63, Hosts: 1, Repos: 3, LargeRepos: 1})
	c := newClient(t)
	did := w.Repos()[0].DID
	load := func(b zoo.Behaviour) (*repo.Commit, *repo.Repo, error) {
		w.Assign(did, b)
		body, err := c.try(t.Context(), xrpc(account(t, w, did).Host, getRepo, "did", did.String()))
		if err != nil {
			return nil, nil, err
		}
		return repo.LoadRepoFromCAR(t.Context(), bytes.NewReader(body))
	}
	commit, loaded, err := load(zoo.WrongKey())
	if err != nil || loaded.MST.Verify() != nil || commit.DID != did.String() {
		t.Errorf("wrong key: %v", err)
	}
	sound, _, err := load(zoo.ReorderedCAR())
	if err != nil || bytes.Equal(sound.Sig, commit.Sig) || sound.Data != commit.Data {
		t.Errorf("reordered: %v", err)
	}
	if _, _, err := load(zoo.MissingNode()); err == nil {
		t.Error("missing node: whole")
	}
	if _, loaded, err := load(zoo.CutBetweenBlocks()); err == nil && !loaded.MST.IsPartial() {
		missing := 0
		for uri := range w.TruthOf(did) {
			parsed, err := syntax.ParseATURI(uri)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := loaded.GetRecordBytes(t.Context(), parsed.Collection(), parsed.RecordKey()); err != nil {
				missing++
			}
		}
		if missing == 0 {
			t.Error("cut between blocks: whole")
		}
	}
	if _, _, err := load(zoo.FlippedBit()); err == nil {
		t.Error("flipped bit: good")
	}
	if commit, _, err := load(zoo.AnotherRepo()); err != nil || commit.DID == did.String() {
		t.Errorf("another repo: %v", err)
	}
	if _, _, err := load(zoo.CutCAR()); err == nil {
		t.Error("cut: whole")
	}
}

func TestHostileListingsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 64, Hosts: 1, Repos: 1, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 130, MaxRecords: 130},
	}})
	c := newClient(t)
	known := w.Repos()[0]
	type page struct {
		Records []listed
		Cursor  string
	}
	ask := func(b zoo.Behaviour, cursor string) (p page, err error) {
		w.Assign(known.DID, b)
		return p, json.Unmarshal(c.get(xrpc(known.Host, listRecords, "repo", known.DID.String(), "collection", sandbox.NoteCollection.String(), "limit", "100", "cursor", cursor)), &p)
	}
	must := func(b zoo.Behaviour, cursor string) page {
		t.Helper()
		p, err := ask(b, cursor)
		if err != nil {
			t.Fatalf("%s: %v", b.Name, err)
		}
		return p
	}
	sound := must(zoo.Behaviour{}, "")
	one := must(zoo.RepeatedCursor(), "")
	if two := must(zoo.RepeatedCursor(), one.Cursor); two.Cursor != one.Cursor || len(two.Records) == 0 || two.Records[0].URI != one.Records[0].URI {
		t.Errorf("repeated cursor: %q, then %q", one.Cursor, two.Cursor)
	}
	cursor, seen := "", map[string]bool{}
	for range 20 {
		p := must(zoo.EndlessPages(), cursor)
		if p.Cursor == "" || seen[p.Cursor] || len(p.Records) == 0 && len(seen) != 2 {
			t.Fatalf("endless pages: cursor %q after %q, %d records", p.Cursor, cursor, len(p.Records))
		}
		seen[p.Cursor], cursor = true, p.Cursor
	}
	if p := must(zoo.EmptyPages(), "a"); len(p.Records) != 0 || p.Cursor != "az" {
		t.Errorf("empty pages: %+v", p)
	}
	first := must(zoo.EmptyFirstPage(), "")
	if p := must(zoo.EmptyFirstPage(), first.Cursor); len(first.Records) != 0 || p.Records[0].URI != sound.Records[0].URI {
		t.Error("empty first page")
	}
	short, named := zoo.ShortPages(50, 0), map[string]bool{}
	cursor = ""
	for _, want := range []int{50, 50, 30, 0} {
		p := must(short, cursor)
		if len(p.Records) != want {
			t.Errorf("short pages: %d records instead of %d", len(p.Records), want)
		}
		for _, rec := range p.Records {
			named[rec.URI] = true
		}
		cursor = p.Cursor
	}
	if len(named) != 130 || cursor != "" {
		t.Errorf("short pages: %d records, then %q", len(named), cursor)
	}
	if p := must(zoo.ShortPages(50, 1), ""); len(p.Records) != 100 {
		t.Errorf("short pages from the second repo on: %d records of the first", len(p.Records))
	}
	if p := must(zoo.ShuffledPages(), ""); p.Records[0].URI != sound.Records[99].URI {
		t.Error("shuffled pages")
	}
	if p := must(zoo.DuplicateRecords(), ""); len(p.Records) != 200 {
		t.Error("duplicate records")
	}
	if p := must(zoo.MoreThanTheLimit(), ""); len(p.Records) != 130 || p.Cursor != "" {
		t.Error("more than the limit")
	}
	for _, b := range []zoo.Behaviour{zoo.ForeignRepo(), zoo.ForeignCollection(), zoo.InvalidRecordKey()} {
		if p := must(b, ""); p.Records[0].URI == sound.Records[0].URI || p.Records[1].URI != sound.Records[1].URI {
			t.Error(b.Name)
		}
	}
	if p := must(zoo.WrongCID(), ""); p.Records[0].CID == sound.Records[0].CID || p.Records[0].URI != sound.Records[0].URI {
		t.Error("wrong cid")
	}
	if p := must(zoo.DuplicateMember(), ""); bytes.Count(p.Records[0].Value, []byte(`"twice"`)) != 2 {
		t.Error("duplicate member")
	}
	if p := must(zoo.OversizedRecord(), ""); len(p.Records[0].Value) < 1<<20 {
		t.Error("oversized record")
	}
	if p := must(zoo.PlainListing(), ""); len(p.Records) != 100 {
		t.Error("plain listing")
	}
	var syntaxError *json.SyntaxError
	if _, err := ask(zoo.TruncatedJSON(), ""); !errors.As(err, &syntaxError) {
		t.Errorf("truncated json: %v", err)
	}
	undisturbed := c.get(xrpc(known.Host, listRecords, "repo", known.DID.String(), "collection", sandbox.NoteCollection.String()))
	w.Assign(known.DID, zoo.DeepRecord())
	if deep := c.get(xrpc(known.Host, listRecords, "repo", known.DID.String(), "collection", sandbox.NoteCollection.String())); strings.Count(string(deep), "[") < 10_000+strings.Count(string(undisturbed), "[") {
		t.Error("deep record")
	}
}
