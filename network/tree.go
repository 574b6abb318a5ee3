package network

import (
	"bytes"
	"context"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

const (
	// maxTreeDepth is one more than the layers that a hash can put a key on.
	maxTreeDepth = digestSize*4 + 1
	// maxTreeEntries bounds the records of one CAR. Several entries may name one block.
	maxTreeEntries = 2 << 20
	// maxNamed bounds the bytes of these records, each as often as it is named: who
	// reads them has them as often, and a small CAR could fill a disk.
	maxNamed = 2 * maxCAR
	// checkEvery is the number of entries between two looks at the context.
	checkEvery = 1024
)

// node reads one node of the tree. The entries come first in its bytes and the
// link to what is left of them last, so it is read through once when it is opened.
type node struct {
	left    []byte // CID, or nil
	entries decoder
	count   int
	key     []byte // of the last entry
}

// entry is one key of a node with what hangs on it.
type entry struct {
	value []byte // CID of the record
	right []byte // CID of the node between this key and the next, or nil
}

// openNode reads {"e":[{"k":…,"p":…,"t":…,"v":…},…],"l":…}, in this order, which
// is the only one that DAG-CBOR allows.
func openNode(data []byte) (*node, error) {
	d := decoder{in: data}
	if n := d.open(majorMap); n != 2 {
		d.fail("node of %d members", n)
	}
	d.name("e")
	n := &node{count: d.open(majorArray)}
	n.entries = d
	last := 0 // length of the last key
	for range n.count {
		prefix, suffix, _ := d.entry()
		if d.err == nil && prefix > uint64(last) {
			d.fail("key shares %d bytes with a key of %d", prefix, last)
		}
		if d.err != nil {
			return nil, d.err
		}
		last = int(prefix) + len(suffix)
		if last == 0 || last > mst.MAX_KEY_BYTES {
			d.fail("key of %d bytes", last)
		}
	}
	d.name("l")
	if !d.null() {
		n.left = d.link()
	}
	d.end()
	return n, d.err
}

// entry takes one entry off.
func (d *decoder) entry() (prefix uint64, suffix []byte, e entry) {
	if n := d.open(majorMap); n != 4 {
		d.fail("entry of %d members", n)
	}
	d.name("k")
	suffix = d.take(majorBytes)
	d.name("p")
	prefix = d.number()
	d.name("t")
	if !d.null() {
		e.right = d.link()
	}
	d.name("v")
	e.value = d.link()
	return prefix, suffix, e
}

// next moves to the next entry, whose key is then in n.key.
func (n *node) next() (e entry, ok bool) {
	if n.count == 0 {
		return e, false
	}
	n.count--
	prefix, suffix, e := n.entries.entry()
	n.key = append(n.key[:prefix], suffix...) // openNode has checked both
	return e, true
}

// verifier walks a whole tree once, and believes nothing of it.
type verifier struct {
	car     *car
	entries int
	named   int64  // bytes of their records
	last    []byte // the greatest key so far
	paths   repoPaths
}

// node verifies a node with everything under it. It returns its layer, which is
// that of its keys and one more than that of the nodes below it; an empty tree has none.
func (v *verifier) node(ctx context.Context, id []byte, depth int) (layer int, err error) {
	if depth > maxTreeDepth {
		return 0, spoiled(ReasonBadAnswer, "tree is deeper than %d", maxTreeDepth)
	}
	data, err := v.block(id)
	if err != nil {
		return 0, err
	}
	n, err := openNode(data)
	if err != nil {
		return 0, spoiled(ReasonBadAnswer, "tree node %x: %w", id, err)
	}
	layer = -1
	if n.left != nil {
		below, err := v.node(ctx, n.left, depth+1)
		if err != nil {
			return 0, err
		}
		layer = below + 1
	}
	if n.count == 0 && (depth == 0) == (n.left != nil) {
		return 0, spoiled(ReasonBadAnswer, "tree node %x has no key", id)
	}
	for e, ok := n.next(); ok; e, ok = n.next() {
		height := mst.HeightForKey(n.key)
		if layer < 0 {
			layer = height
		}
		if height != layer {
			return 0, spoiled(ReasonBadAnswer, "key %.100q is on layer %d, want %d", n.key, layer, height)
		}
		if err := v.entry(ctx, n.key, e); err != nil {
			return 0, err
		}
		if e.right == nil {
			continue
		}
		below, err := v.node(ctx, e.right, depth+1)
		if err != nil {
			return 0, err
		}
		if below != layer-1 {
			return 0, spoiled(ReasonBadAnswer, "node of layer %d under layer %d", below, layer)
		}
	}
	return layer, nil
}

// block is the content of a node.
func (v *verifier) block(id []byte) ([]byte, error) {
	name, ok := linked(id)
	if !ok {
		return nil, spoiled(ReasonBadAnswer, "link to %x, which is no node", id)
	}
	data, kept, there := v.car.find(name)
	switch {
	case !there:
		return nil, spoiled(ReasonIncomplete, "tree node %x is missing", id)
	case !kept:
		return nil, spoiled(ReasonTooLarge, "tree node %x has more than %d bytes", id, maxBlock)
	}
	return data, nil
}

// entry verifies one key and its record.
func (v *verifier) entry(ctx context.Context, key []byte, e entry) error {
	if bytes.Compare(key, v.last) <= 0 {
		return spoiled(ReasonBadAnswer, "key %.100q after %.100q", key, v.last)
	}
	v.last = append(v.last[:0], key...)
	if v.entries++; v.entries > maxTreeEntries {
		return spoiled(ReasonTooLarge, "more than %d records", maxTreeEntries)
	}
	if v.entries%checkEvery == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	if name, ok := linked(e.value); ok {
		data, _, there := v.car.find(name)
		if !there {
			return spoiled(ReasonIncomplete, "record %.100q is missing", key)
		}
		if v.named += int64(len(data)); v.named > maxNamed {
			return spoiled(ReasonTooLarge, "records of more than %d bytes, some named often", maxNamed)
		}
	} else if _, err := cid.Cast(e.value); err != nil {
		return spoiled(ReasonBadAnswer, "record %.100q: %w", key, err)
	}
	return v.paths.add(string(key))
}
