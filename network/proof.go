package network

import (
	"bytes"
	"context"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
)

// lookup is the CID of the record under a key, nil if the tree has no such key. It
// verifies the nodes on the way, and asks for no others: a CAR that proves one record,
// or that there is none, has no more.
func (t *tree) lookup(ctx context.Context, root, key []byte) ([]byte, error) {
	n, err := t.open(ctx, 0, root)
	switch {
	case err != nil:
		return nil, err
	case n.layer < 0 && n.left != nil:
		return nil, spoiled(ReasonBadAnswer, "tree node %x has no key, and is the topmost", root)
	}
	wanted := mst.HeightForKey(key)
	var low, high []byte // what lies outside is not under the node; nil: no bound
	for depth, layer := 1, n.layer; ; depth, layer = depth+1, layer-1 {
		e, next, below, err := n.around(key, low, high)
		switch {
		case err != nil:
			return nil, err
		case e.value != nil && bytes.Equal(below, key):
			return e.value, nil
		case layer <= wanted:
			return nil, nil // it would stand here
		}
		link := n.left
		if e.value != nil {
			link = e.right
		}
		if link == nil {
			return nil, nil
		}
		if n, err = t.below(ctx, link, layer-1, depth); err != nil {
			return nil, err
		}
		low, high = below, next
	}
}

// around are the last entry of a node whose key is not above one, and the keys between
// which the node holds what is under that entry's link. All of the node's keys must lie
// between low and high.
func (n *node) around(key, low, high []byte) (e entry, next, below []byte, err error) {
	next, below = high, low
	behind := false // a greater key was met
	n.rewind()
	for at, ok := n.forward(); ok; at, ok = n.forward() {
		switch {
		case low != nil && bytes.Compare(n.key, low) <= 0, high != nil && bytes.Compare(n.key, high) >= 0:
			return e, nil, nil, spoiled(ReasonBadAnswer, "key %.100q is not between %.100q and %.100q", n.key, low, high)
		case bytes.Compare(n.key, key) <= 0:
			e, below = at, bytes.Clone(n.key)
		case !behind:
			next, behind = bytes.Clone(n.key), true
		}
	}
	return e, next, below, nil
}
