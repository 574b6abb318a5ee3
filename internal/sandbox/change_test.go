package sandbox_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

func TestChangesAreSeenEverywhere(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 51, Hosts: 2, Repos: 3})
	c := newClient(t)
	did := w.Repos()[0].DID
	value, err := atdata.UnmarshalJSON([]byte(`{"$type":"com.example.note","text":"a\u0001\"<é>","n":-7,"b":{"$bytes":"AQI"},"big":9007199254740991,"no":null,"l":[true,{}]}`))
	if err != nil {
		t.Fatal(err)
	}
	seen := func(what string, records int) {
		t.Helper()
		truth := w.TruthOf(did)
		if records >= 0 && len(truth) != records {
			t.Errorf("after %s: %d records, want %d", what, len(truth), records)
		}
		r := account(t, w, did)
		wantTruth(t, c.readRepo(r.Host, did), truth)
		commit, inCAR := readCAR(t, w, c, did)
		var status statusAnswer
		c.into(&status, xrpc(r.Host, getRepoStatus, "did", did.String()))
		if commit.Rev != r.Rev.String() || status.Rev != r.Rev || len(inCAR) != len(truth) {
			t.Errorf("after %s: rev %s, CAR at %s with %d records, status %+v", what, r.Rev, commit.Rev, len(inCAR), status)
		}
		for uri, record := range truth {
			if inCAR[uri] != record.CID {
				t.Errorf("after %s: %s is %s in the CAR, want %s", what, uri, inCAR[uri], record.CID)
			}
		}
	}
	n := account(t, w, did).Records
	made, err := w.Create(did, sandbox.NoteCollection, "", value)
	if err != nil {
		t.Fatal(err)
	}
	if recomputed(made) != made.CID {
		t.Errorf("%s: CID %s cannot be recomputed from %s", made.URI, made.CID, made.Value)
	}
	seen("a create", n+1)
	updated, err := w.Update(did, made.Collection, made.RKey, map[string]any{"text": "new"})
	if err != nil || updated.CID == made.CID || updated.Rev <= made.Rev || updated.URI != made.URI {
		t.Fatalf("updated %+v to %+v: %v", made, updated, err)
	}
	seen("an update", n+1)
	if err := w.Delete(did, made.Collection, made.RKey); err != nil {
		t.Fatal(err)
	}
	seen("a delete", n)
	writes := []sandbox.Write{
		{Op: sandbox.OpCreate, Collection: "org.example.first", Value: value},
		{Op: sandbox.OpCreate, Collection: "org.example.first", Value: value},
		{Op: sandbox.OpCreate, Collection: "org.example.second", RKey: "self", Value: value},
	}
	rev, err := w.Apply(did, writes)
	if err != nil {
		t.Fatal(err)
	}
	for uri, r := range w.TruthOf(did, "org.example.first", "org.example.second") {
		if r.Rev != rev {
			t.Errorf("%s is of commit %s, want %s", uri, r.Rev, rev)
		}
	}
	seen("three creates in one commit", n+3)
	if _, err := w.Empty(did); err != nil {
		t.Fatal(err)
	}
	seen("emptying", 0)
}

// A commit that replaces a pair of records is seen whole or not at all: by the
// truth, by a page, and by a CAR; and with the rev that it has.
func TestCommitsAreAtomic(t *testing.T) {
	t.Parallel()
	const commits, collection = 150, syntax.NSID("com.example.pair")
	w := sandboxtest.Start(t, sandbox.Config{Seed: 52, Hosts: 1, Repos: 1, Collections: []sandbox.Collection{}})
	r := w.Repos()[0]
	pair := func(op sandbox.Op, i int) []sandbox.Write {
		return []sandbox.Write{
			{Op: op, Collection: collection, RKey: "left", Value: map[string]any{"n": i}},
			{Op: op, Collection: collection, RKey: "right", Value: map[string]any{"n": i}},
		}
	}
	if _, err := w.Apply(r.DID, pair(sandbox.OpCreate, 0)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		c := newClient(t)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if page := c.list(r.Host, r.DID, collection, 100, false); len(page) != 2 || page[0].CID != page[1].CID {
				t.Errorf("half a commit on a page: %+v", page)
			}
		}
	})
	readers.Go(func() {
		c := newClient(t)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, records := readCAR(t, w, c, r.DID)
			if len(records) != 2 || records["at://"+r.DID.String()+"/com.example.pair/left"] != records["at://"+r.DID.String()+"/com.example.pair/right"] {
				t.Errorf("half a commit in a CAR: %v", records)
			}
		}
	})
	last := syntax.TID("")
	for i := range commits {
		rev, err := w.Apply(r.DID, pair(sandbox.OpUpdate, i+1))
		if err != nil || rev <= last {
			t.Fatalf("commit %d: rev %s after %s: %v", i, rev, last, err)
		}
		last = rev
		for uri, record := range w.Truth(collection) {
			if record.Rev != rev {
				t.Errorf("%s is at %s, want %s", uri, record.Rev, rev)
			}
		}
	}
	close(stop)
	readers.Wait()
}

// Everything at once, for the race detector; afterwards all views agree.
func TestAccountsMayChangeWhileTheyAreRead(t *testing.T) {
	t.Parallel()
	const rounds = 40
	w := sandboxtest.Start(t, sandbox.Config{Seed: 54, Hosts: 3, Repos: 6})
	all := w.Repos()
	hosts := w.HostURLs()
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := range rounds {
			did := all[i%len(all)].DID
			// Moves are refused now and then: the account is there, or is hidden.
			_ = w.Move(did, hosts[i%len(hosts)])
			if i%10 == 0 {
				if _, err := w.AddRepo(""); err != nil {
					t.Error(err)
				}
			}
		}
	})
	changing.Go(func() {
		for i := range rounds {
			did := all[i%len(all)].DID
			for _, change := range []func(syntax.DID) error{w.Suspend, w.Activate, w.Deactivate, w.Activate} {
				if err := change(did); err != nil {
					t.Error(err)
				}
			}
		}
	})
	changing.Go(func() {
		rng := rand.New(rand.NewPCG(54, 54))
		for range rounds {
			if _, err := w.Mutate(rng); err != nil {
				t.Error(err)
			}
		}
	})
	c := newClient(t)
	for i := range rounds {
		did := all[i%len(all)].DID.String()
		for _, host := range hosts {
			for _, method := range []string{listRecords, describeRepo, getRepo, getRepoStatus, getLatestCommit, listRepos} {
				r := c.get(xrpc(host, method, "did", did, "repo", did, "collection", sandbox.StatusCollection.String()))
				if r.status != 200 && r.status != 400 {
					t.Errorf("%s of %s at %s: %d %s", method, did, host, r.status, r.body)
				}
			}
		}
		c.get(w.PLCURL() + "/" + did)
		c.discover(w.RelayURL(), listRepos, 3, "")
	}
	changing.Wait()
	wantTruth(t, c.readAll(w), w.Truth())
	for _, r := range w.Repos() {
		if commit, records := readCAR(t, w, c, r.DID); commit.Rev != r.Rev.String() || len(records) != r.Records {
			t.Errorf("%s is at %s with %d records, want %+v", r.DID, commit.Rev, len(records), r)
		}
	}
}

func TestMutateKeepsTheWorldTrue(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 53, Hosts: 2, Repos: 12, Odd: 0.1})
	if err := w.Suspend(w.Repos()[0].DID); err != nil {
		t.Fatal(err)
	}
	before := w.Truth()
	var mu sync.Mutex
	ops := map[sandbox.Op]int{}
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(53, uint64(i)))
			for range 150 {
				change, err := w.Mutate(rng)
				if err != nil {
					t.Errorf("mutate: %v", err)
					return
				}
				mu.Lock()
				ops[change.Op]++
				mu.Unlock()
			}
		})
	}
	c := newClient(t)
	for range 5 {
		c.readAll(w)
	}
	writers.Wait()
	after := w.Truth()
	wantTruth(t, c.readAll(w), after)
	if ops[sandbox.OpCreate] < 150 || ops[sandbox.OpUpdate] < 100 || ops[sandbox.OpDelete] < 50 {
		t.Errorf("changes: %v", ops)
	}
	if want := len(before) + ops[sandbox.OpCreate] - ops[sandbox.OpDelete]; len(after) != want {
		t.Errorf("%d records, %d expected", len(after), want)
	}
}
