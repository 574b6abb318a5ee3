package network

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// treeOf is a tree of keys, with the same value under each, as a maker's blocks. It
// gives the CID of its topmost node.
func treeOf(m *carMaker, value string, keys ...string) string {
	m.tb.Helper()
	t := mst.NewEmptyTree()
	c, err := cid.Cast([]byte(value))
	if err != nil {
		m.tb.Fatal(err)
	}
	for _, key := range keys {
		if _, err := t.Insert([]byte(key), c); err != nil {
			m.tb.Fatal(err)
		}
	}
	root, err := t.RootCID()
	if err != nil {
		m.tb.Fatal(err)
	}
	putNodes(m, t.Root)
	return string(root.Bytes())
}

func putNodes(m *carMaker, n *mst.Node) {
	m.tb.Helper()
	for _, e := range n.Entries {
		if e.Child != nil {
			putNodes(m, e.Child)
		}
	}
	data := n.NodeData()
	b, _, err := data.Bytes()
	if err != nil {
		m.tb.Fatal(err)
	}
	m.put(string(b))
}

// carOf is a car as it is when a body of the maker's blocks was read.
func carOf(m *carMaker) *car {
	m.tb.Helper()
	body := m.car(idOf("no commit"))
	c, err := receive([]byte(body))
	if err != nil {
		m.tb.Fatal(err)
	}
	m.tb.Cleanup(c.close)
	return c
}

func TestOnePathIsProvedByTheNodesOnItsWay(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	var all []string
	for i := range 3000 {
		all = append(all, fmt.Sprintf("com.example.thing/k%07d", i*2))
	}
	value := m.value(1)
	root := treeOf(m, value, all...)
	whole := carOf(m)
	for i := range 300 {
		for key, want := range map[string]string{all[i*10]: value, fmt.Sprintf("com.example.thing/k%07d", i*20+1): ""} {
			way := nodesOnTheWay(t, whole, root, key)
			part := carMaker{tb: t, key: m.key}
			for _, b := range way {
				part.put(b)
			}
			tr := tree{car: carOf(&part)}
			if got, err := tr.lookup(t.Context(), []byte(root), []byte(key)); err != nil || string(got) != want {
				t.Fatalf("%s: %x, %v, want %x", key, got, err, want)
			}
			for gone := range way { // each of them is needed
				cut := carMaker{tb: t, key: m.key}
				for j, b := range way {
					if j != gone {
						cut.put(b)
					}
				}
				tr := tree{car: carOf(&cut)}
				if got, err := tr.lookup(t.Context(), []byte(root), []byte(key)); err == nil {
					t.Fatalf("%s: %x, without node %d", key, got, gone)
				}
			}
		}
	}
	empty := treeOf(m, value)
	tr := tree{car: carOf(m)}
	if got, err := tr.lookup(t.Context(), []byte(empty), []byte(all[0])); got != nil || err != nil {
		t.Errorf("an empty repo: %x, %v", got, err)
	}
}

// nodesOnTheWay are the nodes that lead to a key, or to where it would be.
func nodesOnTheWay(tb testing.TB, c *car, root, key string) (way []string) {
	tb.Helper()
	tr := tree{car: c}
	if _, err := tr.lookup(context.WithoutCancel(tb.Context()), []byte(root), []byte(key)); err != nil {
		tb.Fatal(err)
	}
	for _, n := range tr.path {
		way = append(way, string(bytes.Clone(n.data)))
	}
	return way
}

// TestLiesOnTheWayProveNothing has nodes that would hide a record, or show another, of
// a tree that is not the one of its keys.
func TestLiesOnTheWayProveNothing(t *testing.T) {
	t.Parallel()
	const collection = "com.example.thing"
	low := keys(collection, 0, 4)
	middle := between(t, 1, low[1], low[2])
	for name, build := range map[string]func(m *carMaker, v string) string{
		"a lesser key on the right": func(m *carMaker, v string) string {
			return m.node("", leaf{key: middle, value: v, right: m.node("", leaf{key: low[0], value: v})})
		},
		"a greater key on the left": func(m *carMaker, v string) string {
			return m.node(m.node("", leaf{key: low[3], value: v}), leaf{key: middle, value: v})
		},
		"a node without keys on top": func(m *carMaker, v string) string { return m.node(m.node("", leaf{key: low[0], value: v})) },
		"an empty node": func(m *carMaker, v string) string {
			return m.node(m.node(""), leaf{key: middle, value: v, right: m.node("")})
		},
		"a node two layers below": func(m *carMaker, v string) string {
			k := keys(collection, 2, 1)[0]
			n := m.node("", leaf{key: between(t, 0, k, k+"~"), value: v})
			return m.node(n, leaf{key: k, value: v, right: n})
		},
		"a key of another layer": func(m *carMaker, v string) string {
			return m.node("", compress(leaf{key: low[0], value: v}, leaf{key: middle, value: v})...)
		},
		"keys that share too little": func(m *carMaker, v string) string {
			return m.node("", leaf{key: low[0], value: v}, leaf{key: low[1], value: v})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newCARMaker(t)
			root := build(m, m.value(1))
			tr := tree{car: carOf(m)}
			for _, key := range []string{low[0], low[3]} {
				got, err := tr.lookup(t.Context(), []byte(root), []byte(key))
				if err != nil {
					return
				}
				t.Logf("%s: %x", key, got)
			}
			t.Error("everything is believed")
		})
	}
}
