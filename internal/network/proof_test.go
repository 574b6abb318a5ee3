package network

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// TestEveryRecordIsProved asks a host for the proof of each of its records, and of some
// that it has not.
func TestEveryRecordIsProved(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 41, Repos: 6, Hosts: 1})
	c := toWorld(t, w)
	for _, known := range w.Repos() {
		ident, host := lookup(t, c, known.DID), Host(known.Host)
		for uri, want := range w.TruthOf(known.DID) {
			p, err := c.RecordProof(t.Context(), host, ident, want.Collection, want.RKey)
			if err != nil || p.Rev != known.Rev || p.Block.CID.String() != want.CID {
				t.Fatalf("%s: %s at %s, %v", uri, p.Block.CID, p.Rev, err)
			}
			if sum, err := p.Block.CID.Prefix().Sum(p.Block.Data); err != nil || sum != p.Block.CID {
				t.Fatalf("%s: the block is another one's: %v", uri, err)
			}
			p, err = c.RecordProof(t.Context(), host, ident, want.Collection, want.RKey+"-none")
			if err != nil || p.Rev != known.Rev || p.Block.CID.Defined() || p.Block.Data != nil {
				t.Fatalf("%s-none: %s, %v", uri, p.Block.CID, err)
			}
		}
	}
	if n := c.Held(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

// TestProofThatProvesNothing has proofs that are cut, lie, or are of something else.
func TestProofThatProvesNothing(t *testing.T) {
	t.Parallel()
	const collection = "com.example.thing"
	low := repotest.Keys(collection, 0, 4)
	middle := repotest.Between(t, 1, low[1], low[2])
	rkey := syntax.RecordKey(strings.TrimPrefix(low[0], collection+"/"))
	for name, c := range map[string]struct {
		build  func(m *repotest.Maker) string // the body
		reason outcome.Reason
	}{
		"another repo's": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)}), func(c *repo.Commit) { c.DID = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz" }))
		}, outcome.ReasonBadAnswer},
		"a rev that is none": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)}), func(c *repo.Commit) { c.Rev = "now" }))
		}, outcome.ReasonBadRev},
		"another key's signature": {func(m *repotest.Maker) string {
			other := repotest.New(m.TB)
			return other.CAR(other.Commit(other.Node("", repotest.Leaf{Key: low[0], Value: other.Value(1)}), nil))
		}, outcome.ReasonBadSignature},
		"no commit": {func(m *repotest.Maker) string { return m.CAR(repotest.IDOf("none")) }, outcome.ReasonIncomplete},
		"no node": {func(m *repotest.Maker) string {
			node := m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)})
			root := m.Commit(node, nil)
			m.Drop(node)
			return m.CAR(root)
		}, outcome.ReasonIncomplete},
		"no node below": {func(m *repotest.Maker) string {
			below := m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)})
			root := m.Commit(m.Node(below, repotest.Leaf{Key: middle, Value: m.Value(1)}), nil)
			m.Drop(below)
			return m.CAR(root)
		}, outcome.ReasonIncomplete},
		"no record": {func(m *repotest.Maker) string {
			value := m.Value(1)
			root := m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: value}), nil)
			m.Drop(value)
			return m.CAR(root)
		}, outcome.ReasonIncomplete},
		"a node that is none": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Value(1), nil)) }, outcome.ReasonBadAnswer},
		"nothing":             {func(*repotest.Maker) string { return "" }, outcome.ReasonCutBody},
		"more than a proof takes": {func(m *repotest.Maker) string {
			root := m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)}), nil)
			for i := range 10 {
				m.Put(strings.Repeat("x", 500_000) + string(rune('a'+i)))
			}
			return m.CAR(root)
		}, outcome.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := repotest.New(t)
			client := newClient(t, Config{})
			p, err := client.RecordProof(t.Context(), serveCAR(t, c.build(m)), identOf(m), collection, rkey)
			wantReason(t, err, c.reason)
			if p.Block.CID.Defined() || p.Block.Data != nil {
				t.Errorf("the proof has %s", p.Block.CID)
			}
			if n := client.Held(); n != 0 {
				t.Errorf("%d bytes are held", n)
			}
		})
	}
}
