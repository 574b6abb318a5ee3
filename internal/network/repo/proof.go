package repo

import (
	"bytes"
	"context"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/network/outcome"
)

// MaxProof is the largest proof that is read, in bytes after decompression: a record
// of the largest kind, and far more nodes than lead to one.
const MaxProof = 4 << 20

// Proof is what a repo holds under one path, as its host proves it: by a signed commit,
// the nodes of the tree that lead there, and the record.
type Proof struct {
	Rev   syntax.TID // of the commit
	Block Block      // in memory of its own; the CID is undefined if there is no such record
}

// Prove reads what a CAR proves of one record of an account's repo. grow is asked before
// more memory is taken.
func (c *CAR) Prove(ctx context.Context, a Account, grow func(n int64) error, collection syntax.NSID, rkey syntax.RecordKey) (Proof, error) {
	c.grow = grow
	root, rev, err := c.commit(a)
	if err != nil {
		return Proof{}, err
	}
	t := tree{car: c}
	id, err := t.lookup(ctx, root, []byte(collection.String()+"/"+rkey.String()))
	if err != nil || id == nil {
		return Proof{Rev: rev}, err
	}
	block, err := c.copyRecord(id)
	return Proof{Rev: rev, Block: block}, err
}

// copyRecord is a copy of the record under a CID.
func (c *CAR) copyRecord(id []byte) (Block, error) {
	as, err := cid.Cast(id)
	if err != nil {
		return Block{}, outcome.Bad(outcome.ReasonBadAnswer, "the record: %w", err)
	}
	name, ok := digestOf(id)
	if !ok {
		return Block{CID: as}, nil
	}
	f, found, err := c.find(name)
	switch {
	case err != nil:
		return Block{}, err
	case !found:
		return Block{}, outcome.Bad(outcome.ReasonIncomplete, "the record is missing")
	case f.size == notStored:
		return Block{CID: as}, nil
	}
	if err := c.grow(int64(c.bufferSize(f))); err != nil {
		return Block{}, err
	}
	data, err := c.read(f, make([]byte, c.bufferSize(f)))
	return Block{CID: as, Data: bytes.Clone(data)}, err
}

// lookup is the CID of the record under a key, nil if the tree has no such key. It
// verifies the nodes on the path to the key, and needs no others: a CAR that proves one
// record, or that there is none, has no more.
func (t *tree) lookup(ctx context.Context, root, key []byte) ([]byte, error) {
	n, err := t.open(ctx, 0, root)
	switch {
	case err != nil:
		return nil, err
	case n.layer < 0 && n.left != nil:
		return nil, outcome.Bad(outcome.ReasonBadAnswer, "tree node %x has no key, and is the topmost", root)
	}
	wanted := mst.HeightForKey(key)
	var low, high []byte // what lies outside is not under the node; nil: no bound
	for depth, layer := 1, n.layer; ; depth, layer = depth+1, layer-1 {
		e, next, below, err := n.narrow(key, low, high)
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
		if n, err = t.openChild(ctx, link, layer-1, depth); err != nil {
			return nil, err
		}
		low, high = below, next
	}
}

// narrow finds the last entry of a node whose key is not above one, and the bounds of the
// keys under that entry's link. All of the node's keys must lie between low and high.
func (n *node) narrow(key, low, high []byte) (e entry, next, below []byte, err error) {
	next, below = high, low
	passed := false // a greater key was met
	n.rewind()
	for at, ok := n.forward(); ok; at, ok = n.forward() {
		switch {
		case low != nil && bytes.Compare(n.key, low) <= 0, high != nil && bytes.Compare(n.key, high) >= 0:
			return e, nil, nil, outcome.Bad(outcome.ReasonBadAnswer, "key %.100q is not between %.100q and %.100q", n.key, low, high)
		case bytes.Compare(n.key, key) <= 0:
			e, below = at, bytes.Clone(n.key)
		case !passed:
			next, passed = bytes.Clone(n.key), true
		}
	}
	return e, next, below, nil
}
