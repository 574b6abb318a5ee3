package repo

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"appview/internal/network/repo/repotest"
)

// treeOf is a tree of keys, with the same value under each, as a maker's blocks. It
// gives the CID of its topmost node.
func treeOf(m *repotest.Maker, value string, keys ...string) string {
	m.TB.Helper()
	t := mst.NewEmptyTree()
	c, err := cid.Cast([]byte(value))
	if err != nil {
		m.TB.Fatal(err)
	}
	for _, key := range keys {
		if _, err := t.Insert([]byte(key), c); err != nil {
			m.TB.Fatal(err)
		}
	}
	root, err := t.RootCID()
	if err != nil {
		m.TB.Fatal(err)
	}
	putNodes(m, t.Root)
	return string(root.Bytes())
}

func putNodes(m *repotest.Maker, n *mst.Node) {
	m.TB.Helper()
	for _, e := range n.Entries {
		if e.Child != nil {
			putNodes(m, e.Child)
		}
	}
	data := n.NodeData()
	b, _, err := data.Bytes()
	if err != nil {
		m.TB.Fatal(err)
	}
	m.Put(string(b))
}

// carOf is a car as it is when a body of the maker's blocks was read.
func carOf(m *repotest.Maker) *CAR {
	m.TB.Helper()
	body := m.CAR(repotest.IDOf("no commit"))
	c, err := receive([]byte(body))
	if err != nil {
		m.TB.Fatal(err)
	}
	m.TB.Cleanup(c.Close)
	return c
}

func TestOnePathIsProvedByTheNodesOnItsWay(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	var all []string
	for i := range 3000 {
		all = append(all, fmt.Sprintf("com.example.thing/k%07d", i*2))
	}
	value := m.Value(1)
	root := treeOf(m, value, all...)
	whole := carOf(m)
	for i := range 300 {
		for key, want := range map[string]string{all[i*10]: value, fmt.Sprintf("com.example.thing/k%07d", i*20+1): ""} {
			way := nodesOnTheWay(t, whole, root, key)
			part := repotest.Maker{TB: t, Key: m.Key}
			for _, b := range way {
				part.Put(b)
			}
			tr := tree{car: carOf(&part)}
			if got, err := tr.lookup(t.Context(), []byte(root), []byte(key)); err != nil || string(got) != want {
				t.Fatalf("%s: %x, %v, want %x", key, got, err, want)
			}
			for gone := range way { // each of them is needed
				cut := repotest.Maker{TB: t, Key: m.Key}
				for j, b := range way {
					if j != gone {
						cut.Put(b)
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
func nodesOnTheWay(tb testing.TB, c *CAR, root, key string) (way []string) {
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
	low := repotest.Keys(collection, 0, 4)
	middle := repotest.Between(t, 1, low[1], low[2])
	for name, build := range map[string]func(m *repotest.Maker, v string) string{
		"a lesser key on the right": func(m *repotest.Maker, v string) string {
			return m.Node("", repotest.Leaf{Key: middle, Value: v, Right: m.Node("", repotest.Leaf{Key: low[0], Value: v})})
		},
		"a greater key on the left": func(m *repotest.Maker, v string) string {
			return m.Node(m.Node("", repotest.Leaf{Key: low[3], Value: v}), repotest.Leaf{Key: middle, Value: v})
		},
		"a node without keys on top": func(m *repotest.Maker, v string) string {
			return m.Node(m.Node("", repotest.Leaf{Key: low[0], Value: v}))
		},
		"an empty node": func(m *repotest.Maker, v string) string {
			return m.Node(m.Node(""), repotest.Leaf{Key: middle, Value: v, Right: m.Node("")})
		},
		"a node two layers below": func(m *repotest.Maker, v string) string {
			k := repotest.Keys(collection, 2, 1)[0]
			n := m.Node("", repotest.Leaf{Key: repotest.Between(t, 0, k, k+"~"), Value: v})
			return m.Node(n, repotest.Leaf{Key: k, Value: v, Right: n})
		},
		"a key of another layer": func(m *repotest.Maker, v string) string {
			return m.Node("", repotest.Compress(repotest.Leaf{Key: low[0], Value: v}, repotest.Leaf{Key: middle, Value: v})...)
		},
		"keys that share too little": func(m *repotest.Maker, v string) string {
			return m.Node("", repotest.Leaf{Key: low[0], Value: v}, repotest.Leaf{Key: low[1], Value: v})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := repotest.New(t)
			root := build(m, m.Value(1))
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
