package sandbox_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// TestProofOfARecordHoldsWhatLeadsThere reads proofs with the network's own library.
func TestProofOfARecordHoldsWhatLeadsThere(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 5, Hosts: 1, Repos: 1, Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 300, MaxRecords: 300}}})
	c := newClient(t)
	known := w.Repos()[0]
	n := 0
	for uri, want := range w.Truth() {
		if n++; n > 50 {
			break
		}
		r := c.get(xrpc(known.Host, "com.atproto.sync.getRecord", "did", known.DID.String(), "collection", want.Collection.String(), "rkey", want.RKey.String()))
		if r.status != 200 || len(r.body) > 20_000 {
			t.Fatalf("%s: %d with %d bytes", uri, r.status, len(r.body))
		}
		commit, got, err := repo.LoadRepoFromCAR(t.Context(), bytes.NewReader(r.body))
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		_, id, err := got.GetRecordBytes(t.Context(), want.Collection, want.RKey)
		if err != nil || id.String() != want.CID || commit.Rev != known.Rev.String() {
			t.Errorf("%s: %v at %s, %v", uri, id, commit.Rev, err)
		}
	}
	r := c.get(xrpc(known.Host, "com.atproto.sync.getRecord", "did", known.DID.String(), "collection", sandbox.NoteCollection.String(), "rkey", "none"))
	if r.status != 200 {
		t.Errorf("no record: %d %s", r.status, r.body)
	}
	r = c.get(xrpc(known.Host, "com.atproto.sync.getRecord", "did", known.DID.String(), "collection", "x", "rkey", "none"))
	if r.status != 400 {
		t.Errorf("no collection: %d %s", r.status, r.body)
	}
}

// TestNumbersArePrintedAsJavaScriptDoes has floats that other languages print otherwise.
func TestNumbersArePrintedAsJavaScriptDoes(t *testing.T) {
	t.Parallel()
	w := unserved(t, sandbox.Config{Seed: 5, Hosts: 1, Repos: 1})
	did := w.Repos()[0].DID
	for want, f := range map[string]float64{
		"0": math.Copysign(0, -1), "1": 1, "-3": -3, "1.5": 1.5, "51.507351": 51.507351, "10000000000000000000": 1e19, "1e+21": 1e21,
		"-1.25e+300": -1.25e300, "0.000001": 1e-6, "1e-7": 1e-7, "5e-324": 5e-324, "123456789012345680000": 123456789012345680000,
	} {
		rec, err := w.Create(did, sandbox.NoteCollection, syntax.RecordKey(""), map[string]any{"n": f})
		if err != nil || !strings.HasSuffix(string(rec.Value), `"n":`+want+`}`) {
			t.Errorf("%g is %s, %v", f, rec.Value, err)
		}
	}
}
