package zoo

import (
	"bytes"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox"
)

// treeZoo are repos whose tree says the same as it should, in another form. Only one
// tree of some keys and values is the right one, so none of these is to be believed.
func treeZoo() []Behaviour {
	return []Behaviour{
		UnsharedPrefixes(), ShortPrefixes(), SwappedKeys(), RepeatedKey(), OneNode(), EmptyNode(), TopWithoutKey(), ExtraLayer(),
	}
}

// nodeEdit changes a node of a tree whose nodes below are those that they will be. put
// adds another node and gives its CID.
type nodeEdit func(n *editedNode, put func(editedNode) *cid.Cid)

// editedNode is a node with its keys in full. An entry's prefix is told anew when it is
// written, unless raw says that it stays as it is.
type editedNode struct {
	left    *cid.Cid
	entries []mst.EntryData
	raw     bool
	layer   int // of its keys; one more than that of the node below where it has none
}

// onTree changes the tree of every CAR, and signs what comes of it.
func onTree(change nodeEdit, top func(root *cid.Cid, put func(editedNode) *cid.Cid) *cid.Cid) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return onCAR(func(w *sandbox.World, did syntax.DID, c *carBlocks) {
		h, err := w.Head(did)
		if err != nil {
			return
		}
		var commit repo.Commit
		if err := commit.UnmarshalCBOR(bytes.NewReader(h.Commit())); err != nil {
			return
		}
		e := treeEditor{car: c, nodes: make(map[cid.Cid][]byte), change: change}
		for _, b := range h.Blocks {
			e.nodes[b.CID] = b.Data
		}
		root, _ := e.edit(commit.Data)
		if top != nil && root != nil {
			root = top(root, e.put)
		}
		if root == nil || e.failed {
			return
		}
		commit.Data = *root
		if signed, err := w.Sign(did, commit); err == nil {
			c.setRoot(signed)
		}
	})
}

// treeEditor writes a tree anew.
type treeEditor struct {
	car    *carBlocks
	nodes  map[cid.Cid][]byte
	change nodeEdit
	failed bool
}

// edit writes a node with everything under it anew. It gives its CID and its layer.
func (e *treeEditor) edit(id cid.Cid) (*cid.Cid, int) {
	d, err := mst.NodeDataFromCBOR(bytes.NewReader(e.nodes[id]))
	if err != nil {
		e.failed = true
		return nil, 0
	}
	n := editedNode{left: d.Left, layer: -1}
	var key []byte
	for _, entry := range d.Entries {
		key = append(bytes.Clone(key[:entry.PrefixLen]), entry.KeySuffix...)
		entry.KeySuffix = bytes.Clone(key)
		n.layer = mst.HeightForKey(key)
		n.entries = append(n.entries, entry)
	}
	if n.left != nil {
		var below int
		if n.left, below = e.edit(*n.left); n.layer < 0 {
			n.layer = below + 1
		}
	}
	for i := range n.entries {
		if right := n.entries[i].Right; right != nil {
			n.entries[i].Right, _ = e.edit(*right)
		}
	}
	if e.change != nil {
		e.change(&n, e.put)
	}
	return e.put(n), n.layer
}

// put writes a node, with what its keys share left out of them.
func (e *treeEditor) put(n editedNode) *cid.Cid {
	d := mst.NodeData{Left: n.left, Entries: slices.Clone(n.entries)}
	var last []byte
	for i := range d.Entries {
		entry := &d.Entries[i]
		key := entry.KeySuffix
		if !n.raw {
			entry.PrefixLen = int64(mst.CountPrefixLen(last, key))
		}
		entry.KeySuffix = key[entry.PrefixLen:]
		last = key
	}
	b, id, err := d.Bytes()
	if err != nil {
		e.failed = true
		return nil
	}
	e.car.blocks = append(e.car.blocks, append(bytes.Clone(id.Bytes()), b...))
	return id
}

// UnsharedPrefixes writes every key of the tree in full.
func UnsharedPrefixes() Behaviour {
	return Behaviour{Name: "unshared prefixes", fault: onTree(func(n *editedNode, _ func(editedNode) *cid.Cid) {
		n.raw = true
		for i := range n.entries {
			n.entries[i].PrefixLen = 0
		}
	}, nil)}
}

// ShortPrefixes has every key share a byte less than it can with the one before it.
func ShortPrefixes() Behaviour {
	return Behaviour{Name: "short prefixes", fault: onTree(func(n *editedNode, _ func(editedNode) *cid.Cid) {
		n.raw = true
		for i := range n.entries {
			n.entries[i].PrefixLen = max(n.entries[i].PrefixLen-1, 0)
		}
	}, nil)}
}

// SwappedKeys has the last two keys of every node in the wrong order.
func SwappedKeys() Behaviour {
	return Behaviour{Name: "swapped keys", fault: onTree(func(n *editedNode, _ func(editedNode) *cid.Cid) {
		if i := len(n.entries) - 1; i > 0 {
			n.entries[i], n.entries[i-1] = n.entries[i-1], n.entries[i]
		}
	}, nil)}
}

// RepeatedKey has the last key of every node twice.
func RepeatedKey() Behaviour {
	return Behaviour{Name: "repeated key", fault: onTree(func(n *editedNode, _ func(editedNode) *cid.Cid) {
		if i := len(n.entries) - 1; i >= 0 {
			n.entries = append(n.entries, n.entries[i])
			n.entries[i].Right = nil
		}
	}, nil)}
}

// OneNode has the keys of every node in all nodes above it as well, up to one that has all.
func OneNode() Behaviour {
	return Behaviour{Name: "one node", fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		var all []mst.EntryData // from the lowest node up
		return onTree(func(n *editedNode, _ func(editedNode) *cid.Cid) {
			for _, entry := range n.entries {
				entry.Right = nil
				all = append(all, entry)
			}
			slices.SortFunc(all, func(x, y mst.EntryData) int { return bytes.Compare(x.KeySuffix, y.KeySuffix) })
			n.left, n.entries = nil, all
		}, nil)(w, r)
	}}
}

// EmptyNode has a node without anything behind every key that has none behind it.
func EmptyNode() Behaviour {
	return Behaviour{Name: "empty node", fault: onTree(func(n *editedNode, put func(editedNode) *cid.Cid) {
		for i := range n.entries {
			if n.entries[i].Right == nil {
				n.entries[i].Right = put(editedNode{})
			}
		}
	}, nil)}
}

// TopWithoutKey has a node without a key above the topmost one.
func TopWithoutKey() Behaviour {
	return Behaviour{Name: "top without key", fault: onTree(nil, func(root *cid.Cid, put func(editedNode) *cid.Cid) *cid.Cid {
		return put(editedNode{left: root})
	})}
}

// ExtraLayer has a node without a key between every node and those below it.
func ExtraLayer() Behaviour {
	return Behaviour{Name: "extra layer", fault: onTree(func(n *editedNode, put func(editedNode) *cid.Cid) {
		if n.left != nil {
			n.left = put(editedNode{left: n.left})
		} else {
			n.left = put(editedNode{left: put(editedNode{})})
		}
	}, nil)}
}
