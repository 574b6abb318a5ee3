package network

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/sandbox"
	"appview/sandbox/sandboxtest"
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
	low := keys(collection, 0, 4)
	middle := between(t, 1, low[1], low[2])
	rkey := syntax.RecordKey(strings.TrimPrefix(low[0], collection+"/"))
	for name, c := range map[string]struct {
		build  func(m *carMaker) string // the body
		reason Reason
	}{
		"another repo's": {func(m *carMaker) string {
			return m.car(m.commit(m.node("", leaf{key: low[0], value: m.value(1)}), func(c *repo.Commit) { c.DID = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz" }))
		}, ReasonBadAnswer},
		"a rev that is none": {func(m *carMaker) string {
			return m.car(m.commit(m.node("", leaf{key: low[0], value: m.value(1)}), func(c *repo.Commit) { c.Rev = "now" }))
		}, ReasonBadRev},
		"another key's signature": {func(m *carMaker) string {
			other := newCARMaker(m.tb)
			return other.car(other.commit(other.node("", leaf{key: low[0], value: other.value(1)}), nil))
		}, ReasonBadSignature},
		"no commit": {func(m *carMaker) string { return m.car(idOf("none")) }, ReasonIncomplete},
		"no node": {func(m *carMaker) string {
			node := m.node("", leaf{key: low[0], value: m.value(1)})
			root := m.commit(node, nil)
			m.drop(node)
			return m.car(root)
		}, ReasonIncomplete},
		"no node below": {func(m *carMaker) string {
			below := m.node("", leaf{key: low[0], value: m.value(1)})
			root := m.commit(m.node(below, leaf{key: middle, value: m.value(1)}), nil)
			m.drop(below)
			return m.car(root)
		}, ReasonIncomplete},
		"no record": {func(m *carMaker) string {
			value := m.value(1)
			root := m.commit(m.node("", leaf{key: low[0], value: value}), nil)
			m.drop(value)
			return m.car(root)
		}, ReasonIncomplete},
		"a node that is none": {func(m *carMaker) string { return m.car(m.commit(m.value(1), nil)) }, ReasonBadAnswer},
		"nothing":             {func(*carMaker) string { return "" }, ReasonCutBody},
		"more than a proof takes": {func(m *carMaker) string {
			root := m.commit(m.node("", leaf{key: low[0], value: m.value(1)}), nil)
			for i := range 10 {
				m.put(strings.Repeat("x", 500_000) + string(rune('a'+i)))
			}
			return m.car(root)
		}, ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newCARMaker(t)
			client := newClient(t, Config{})
			p, err := client.RecordProof(t.Context(), serveCAR(t, c.build(m)), m.ident(), collection, rkey)
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
