package repo

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
)

// TestHostileCARs has one way of being wrong a row. Every row starts from a
// sound repo of two layers: node(low) key node(high).
func TestHostileCARs(t *testing.T) {
	t.Parallel()
	const collection = "com.example.thing"
	low := repotest.Keys(collection, 0, 2)
	middle := repotest.Between(t, 1, low[0], low[1])
	// sound adds the usual tree and gives its root with the two nodes below it.
	sound := func(m *repotest.Maker) (root, left, right string) {
		left = m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)})
		right = m.Node("", repotest.Leaf{Key: low[1], Value: m.Value(2)})
		return m.Node(left, repotest.Leaf{Key: middle, Value: m.Value(3), Right: right}), left, right
	}
	usual := func(m *repotest.Maker) string {
		root, _, _ := sound(m)
		return m.CAR(m.Commit(root, nil))
	}
	single := func(leaves ...repotest.Leaf) func(m *repotest.Maker) string {
		return func(m *repotest.Maker) string {
			for i := range leaves {
				if leaves[i].Value == "" {
					leaves[i].Value = m.Value(9)
				}
			}
			return m.CAR(m.Commit(m.Node("", leaves...), nil))
		}
	}
	committed := func(change func(*repo.Commit)) func(*repotest.Maker) string {
		return func(m *repotest.Maker) string {
			root, _, _ := sound(m)
			return m.CAR(m.Commit(root, change))
		}
	}
	without := func(which int) func(*repotest.Maker) string {
		return func(m *repotest.Maker) string {
			root, left, right := sound(m)
			head := m.Commit(root, nil)
			m.Drop([]string{head, root, left, right, m.Value(1)}[which])
			if which == 4 {
				m.Drop(m.Blocks[len(m.Blocks)-1][0]) // value added it once more
			}
			return m.CAR(head)
		}
	}
	raw := "\x01\x55\x12\x20" + strings.Repeat("r", 32)
	ahead := syntax.NewTID(time.Now().Add(48*time.Hour).UnixMicro(), 1).String()
	for name, c := range map[string]struct {
		make func(*repotest.Maker) string
		want outcome.Reason
	}{
		"sound":           {usual, ""},
		"two roots":       {func(m *repotest.Maker) string { root, left, _ := sound(m); return m.CAR(m.Commit(root, nil), left) }, ""},
		"repeated blocks": {func(m *repotest.Maker) string { b := usual(m); return b + b[len(repotest.Header(repotest.IDOf(""))):] }, ""},
		"strange blocks": {func(m *repotest.Maker) string {
			return usual(m) + repotest.Frame(raw+"anything") + repotest.Frame("\x12\x20"+strings.Repeat("0", 32)) + repotest.Frame("x") + repotest.Frame("")[1:]
		}, ""},
		"large strange block": {func(m *repotest.Maker) string {
			return usual(m) + repotest.Frame(repotest.IDOf(strings.Repeat("x", maxBlock+1))+strings.Repeat("x", maxBlock+1))
		}, ""},
		"empty repo": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Node(""), nil)) }, ""},

		"nothing":               {func(*repotest.Maker) string { return "" }, outcome.ReasonCutBody},
		"text":                  {func(*repotest.Maker) string { return "hello, this is no car" }, outcome.ReasonBadAnswer},
		"json":                  {func(*repotest.Maker) string { return `{"error":"none"}` }, outcome.ReasonBadAnswer},
		"html":                  {func(*repotest.Maker) string { return "<!doctype html>" }, outcome.ReasonBadAnswer},
		"header only":           {func(*repotest.Maker) string { return repotest.Header(repotest.IDOf("x")) }, outcome.ReasonIncomplete},
		"no roots":              {func(m *repotest.Maker) string { usual(m); return m.CAR() }, outcome.ReasonBadAnswer},
		"raw root":              {func(m *repotest.Maker) string { usual(m); return m.CAR(raw) }, outcome.ReasonBadAnswer},
		"root that is a node":   {func(m *repotest.Maker) string { root, _, _ := sound(m); return m.CAR(root) }, outcome.ReasonBadAnswer},
		"root that is a record": {func(m *repotest.Maker) string { return m.CAR(m.Value(1)) }, outcome.ReasonBadAnswer},
		"version 2":             {func(m *repotest.Maker) string { return strings.Replace(usual(m), "version\x01", "version\x02", 1) }, outcome.ReasonBadAnswer},
		"huge header":           {func(*repotest.Maker) string { return "\xff\xff\xff\xff\x0f" }, outcome.ReasonBadAnswer},
		"header of many roots": {func(*repotest.Maker) string {
			return repotest.Frame("\xa2\x65roots\x9b\x7f\xff\xff\xff\xff\xff\xff\xff")
		}, outcome.ReasonBadAnswer},
		"huge block":             {func(m *repotest.Maker) string { return usual(m) + "\xff\xff\xff\xff\xff\xff\xff\xff\x7f" }, outcome.ReasonBadAnswer},
		"endless varint":         {func(m *repotest.Maker) string { return usual(m) + strings.Repeat("\xff", 20) }, outcome.ReasonBadAnswer},
		"empty block":            {func(m *repotest.Maker) string { return usual(m) + "\x00" }, outcome.ReasonBadAnswer},
		"cut in a block":         {func(m *repotest.Maker) string { b := usual(m); return b[:len(b)-5] }, outcome.ReasonCutBody},
		"cut in a cid":           {func(m *repotest.Maker) string { return usual(m) + "\x40" + linkPrefix }, outcome.ReasonCutBody},
		"cut in a length":        {func(m *repotest.Maker) string { return usual(m) + "\x80" }, outcome.ReasonCutBody},
		"cut in a strange block": {func(m *repotest.Maker) string { return usual(m) + "\x40" + raw }, outcome.ReasonCutBody},
		"cut in the header":      {func(m *repotest.Maker) string { return usual(m)[:20] }, outcome.ReasonCutBody},
		"wrong hash":             {func(m *repotest.Maker) string { b := []byte(usual(m)); b[len(b)-1]++; return string(b) }, outcome.ReasonBadAnswer},
		"wrong hash, large block": {func(m *repotest.Maker) string {
			return usual(m) + repotest.Frame(repotest.IDOf("x")+strings.Repeat("x", maxBlock+1))
		}, outcome.ReasonBadAnswer},

		"commit missing":      {without(0), outcome.ReasonIncomplete},
		"top node missing":    {without(1), outcome.ReasonIncomplete},
		"left node missing":   {without(2), outcome.ReasonIncomplete},
		"right node missing":  {without(3), outcome.ReasonIncomplete},
		"record missing":      {without(4), outcome.ReasonIncomplete},
		"cut between blocks":  {func(m *repotest.Maker) string { b := usual(m); return b[:strings.LastIndex(b, linkPrefix)-1] }, outcome.ReasonIncomplete},
		"another one's":       {committed(func(c *repo.Commit) { c.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" }), outcome.ReasonBadAnswer},
		"repo version 2":      {committed(func(c *repo.Commit) { c.Version = 2 }), outcome.ReasonBadAnswer},
		"rev is no tid":       {committed(func(c *repo.Commit) { c.Rev = "yesterday" }), outcome.ReasonBadRev},
		"no rev":              {committed(func(c *repo.Commit) { c.Rev = "" }), outcome.ReasonBadRev},
		"rev in the future":   {committed(func(c *repo.Commit) { c.Rev = ahead }), outcome.ReasonBadRev},
		"tree is a raw block": {func(m *repotest.Maker) string { return m.CAR(m.Commit(raw, nil)) }, outcome.ReasonBadAnswer},
		"wrong key": {func(m *repotest.Maker) string {
			right := m.Key
			m.Key = repotest.New(m.TB).Key
			b := usual(m)
			m.Key = right
			return b
		}, outcome.ReasonBadSignature},
		"commit with a tail": {func(m *repotest.Maker) string {
			root, _, _ := sound(m)
			m.Commit(root, nil)
			return m.CAR(m.Put(m.Blocks[len(m.Blocks)-1][1] + "\xf6"))
		}, outcome.ReasonBadAnswer},
		"huge commit": {func(m *repotest.Maker) string {
			root, _, _ := sound(m)
			return m.CAR(m.Commit(root, func(c *repo.Commit) { c.Rev = strings.Repeat("2", maxCommit) }))
		}, outcome.ReasonBadAnswer},

		"prefix out of range": {single(repotest.Leaf{Key: low[0]}, repotest.Leaf{Key: "zzz", Prefix: 1000}), outcome.ReasonBadAnswer},
		"first prefix":        {single(repotest.Leaf{Key: low[0], Prefix: 1}), outcome.ReasonBadAnswer},
		"negative prefix":     {single(repotest.Leaf{Key: low[0], Prefix: -1}), outcome.ReasonBadAnswer},
		"huge prefix":         {single(repotest.Leaf{Key: low[0]}, repotest.Leaf{Key: "z", Prefix: 1 << 62}), outcome.ReasonBadAnswer},
		"empty key":           {single(repotest.Leaf{Key: ""}), outcome.ReasonBadAnswer},
		"key too long":        {single(repotest.Leaf{Key: strings.Repeat("k", 1025)}), outcome.ReasonBadAnswer},
		"duplicate key":       {single(repotest.Leaf{Key: low[0]}, repotest.Leaf{Key: low[0]}), outcome.ReasonBadAnswer},
		"unsorted":            {single(repotest.Leaf{Key: low[1]}, repotest.Leaf{Key: low[0]}), outcome.ReasonBadAnswer},
		"layers mixed":        {single(repotest.Leaf{Key: low[0]}, repotest.Leaf{Key: middle}), outcome.ReasonBadAnswer},
		"record without cid":  {single(repotest.Leaf{Key: low[0], Value: "\x00"}), outcome.ReasonBadAnswer},
		"huge count": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Put("\xa2\x61e\x9b\x00\xff\xff\xff\xff\xff\xff\xff\x61l\xf6"), nil))
		}, outcome.ReasonBadAnswer},
		"endless array":  {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put("\xa2\x61e\x9f\xff\x61l\xf6"), nil)) }, outcome.ReasonBadAnswer},
		"node of floats": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put("\xa2\x61e\xf9\x00\x00\x61l\xf6"), nil)) }, outcome.ReasonBadAnswer},
		"node with tail": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put(repotest.NodeBytes("")+"\x00"), nil)) }, outcome.ReasonBadAnswer},
		"node cut": {func(m *repotest.Maker) string {
			b := repotest.NodeBytes("")
			return m.CAR(m.Commit(m.Put(b[:len(b)-1]), nil))
		}, outcome.ReasonBadAnswer},
		"members swapped": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put("\xa2\x61l\xf6\x61e\x80"), nil)) }, outcome.ReasonBadAnswer},
		"long numbers":    {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put("\xa2\x61e\x98\x00\x61l\xf6"), nil)) }, outcome.ReasonBadAnswer},
		"deep chain": {func(m *repotest.Maker) string {
			id := m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)})
			for range 1000 {
				id = m.Node(id)
			}
			return m.CAR(m.Commit(id, nil))
		}, outcome.ReasonBadAnswer},
		"top without a key": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Node(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)})), nil))
		}, outcome.ReasonBadAnswer},
		"empty node below": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Node(m.Node(""), repotest.Leaf{Key: middle, Value: m.Value(1)}), nil))
		}, outcome.ReasonBadAnswer},
		"left child of the wrong layer": {func(m *repotest.Maker) string {
			top := repotest.Keys(collection, 2, 1)[0]
			first := repotest.Keys("com.example.a", 0, 1)[0]
			return m.CAR(m.Commit(m.Node(m.Node("", repotest.Leaf{Key: first, Value: m.Value(1)}), repotest.Leaf{Key: top, Value: m.Value(2)}), nil))
		}, outcome.ReasonBadAnswer},
		"right child of the wrong layer": {func(m *repotest.Maker) string {
			right := m.Node("", repotest.Leaf{Key: repotest.Keys("com.example.z", 1, 1)[0], Value: m.Value(1)})
			return m.CAR(m.Commit(m.Node("", repotest.Leaf{Key: middle, Value: m.Value(2), Right: right}), nil))
		}, outcome.ReasonBadAnswer},
		"child below layer zero": {func(m *repotest.Maker) string {
			right := m.Node("", repotest.Leaf{Key: low[1], Value: m.Value(1)})
			return m.CAR(m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(2), Right: right}), nil))
		}, outcome.ReasonBadAnswer},
		"the same node twice": {func(m *repotest.Maker) string {
			_, left, _ := sound(m)
			return m.CAR(m.Commit(m.Node(left, repotest.Leaf{Key: middle, Value: m.Value(2), Right: left}), nil))
		}, outcome.ReasonBadAnswer},
		"child out of order": {func(m *repotest.Maker) string {
			left, right := m.Node("", repotest.Leaf{Key: low[1], Value: m.Value(1)}), m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(2)})
			return m.CAR(m.Commit(m.Node(left, repotest.Leaf{Key: middle, Value: m.Value(3), Right: right}), nil))
		}, outcome.ReasonBadAnswer},
		"raw node": {func(m *repotest.Maker) string {
			return m.CAR(m.Commit(m.Node(raw, repotest.Leaf{Key: middle, Value: m.Value(3)}), nil))
		}, outcome.ReasonBadAnswer},
		"commit of two repos": {func(m *repotest.Maker) string {
			commit := m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)}), nil)
			block := m.Blocks[len(m.Blocks)-1][1]
			m.Drop(commit)
			return m.CAR(m.Put("\xa7\x63did" + repotest.TextHead(7) + "did:x:y" + block[1:]))
		}, outcome.ReasonBadAnswer},
		"commit of two revs": {func(m *repotest.Maker) string {
			commit := m.Commit(m.Node("", repotest.Leaf{Key: low[0], Value: m.Value(1)}), nil)
			block := m.Blocks[len(m.Blocks)-1][1]
			m.Drop(commit)
			return m.CAR(m.Put("\xa7\x63rev" + repotest.TextHead(uint64(len(repotest.Rev))) + repotest.Rev + block[1:]))
		}, outcome.ReasonBadAnswer},
		"large node": {func(m *repotest.Maker) string { return m.CAR(m.Commit(m.Put(strings.Repeat("x", maxBlock+1)), nil)) }, outcome.ReasonTooLarge},
		"too many collections": {func(m *repotest.Maker) string {
			var all []string
			for i := range MaxCollections + 1 {
				all = append(all, repotest.Keys(fmt.Sprintf("com.example.c%04d", i), 0, 1)[0])
			}
			return m.CAR(m.Commit(m.Node("", repotest.Compressed(m.Value(1), all...)...), nil))
		}, outcome.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := repotest.New(t)
			r, err := open(t.Context(), c.make(m), account(m))
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("error is no line: %q", err)
			}
			wantOutcome(t, r, err, c.want)
		})
	}
}
