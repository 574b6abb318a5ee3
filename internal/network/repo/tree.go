package repo

import (
	"bytes"
	"context"

	"github.com/ipfs/go-cid"

	"appview/internal/network/outcome"
)

const (
	// A tree says more than its bytes: keys share their beginnings, and several may name
	// one block. Whoever reads them has each as often as it is named, so that a small
	// CAR could take hours, or fill a disk. All keys and records of a tree may have no more
	// than maxExpansion times the bytes that were received, and freeExpansion.
	maxExpansion  = 2
	freeExpansion = 2 << 20
	// checkEvery is the number of entries between two looks at the context.
	checkEvery = 1024
)

// verifier walks a whole tree once, and believes nothing of it. What passes is the one
// tree that its keys and values have.
type verifier struct {
	tree
	entries  int
	expanded int64  // bytes of keys and records
	last     []byte // the greatest key so far
	paths    paths
}

// verifyTree verifies a whole tree.
func (v *verifier) verifyTree(ctx context.Context, id []byte) error {
	n, err := v.open(ctx, 0, id)
	switch {
	case err != nil:
		return err
	case n.layer < 0 && n.left != nil:
		return outcome.Bad(outcome.ReasonBadAnswer, "tree node %x has no key, and is the topmost", id)
	}
	return v.verifyNode(ctx, n, n.layer, 0)
}

// verifyNode verifies what is under an open node whose keys are on a layer.
func (v *verifier) verifyNode(ctx context.Context, n *node, layer, depth int) error {
	if n.left != nil {
		if err := v.verifyChild(ctx, n.left, layer-1, depth+1); err != nil {
			return err
		}
	}
	n.rewind()
	for e, ok := n.forward(); ok; e, ok = n.forward() {
		if err := v.verifyEntry(ctx, n.key, e); err != nil {
			return err
		}
		if e.right == nil {
			continue
		}
		if err := v.verifyChild(ctx, e.right, layer-1, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// verifyChild verifies a node below another one, which must be on the next layer.
func (v *verifier) verifyChild(ctx context.Context, id []byte, layer, depth int) error {
	n, err := v.openChild(ctx, id, layer, depth)
	if err != nil {
		return err
	}
	return v.verifyNode(ctx, n, layer, depth)
}

// openChild opens a node that has another one above it and must be on a layer. One without
// a key leads to one with a key, further down.
func (t *tree) openChild(ctx context.Context, id []byte, layer, depth int) (*node, error) {
	if layer < 0 {
		return nil, outcome.Bad(outcome.ReasonBadAnswer, "node %x is under the lowest layer", id)
	}
	n, err := t.open(ctx, depth, id)
	switch {
	case err != nil:
		return nil, err
	case n.layer < 0 && n.left == nil:
		return nil, outcome.Bad(outcome.ReasonBadAnswer, "tree node %x is empty", id)
	case n.layer >= 0 && n.layer != layer:
		return nil, outcome.Bad(outcome.ReasonBadAnswer, "node of layer %d under layer %d", n.layer, layer+1)
	}
	return n, nil
}

// verifyEntry verifies one key and its record.
func (v *verifier) verifyEntry(ctx context.Context, key []byte, e entry) error {
	if bytes.Compare(key, v.last) <= 0 {
		return outcome.Bad(outcome.ReasonBadAnswer, "key %.100q after %.100q", key, v.last)
	}
	v.last = append(v.last[:0], key...)
	if v.entries++; v.entries%checkEvery == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	v.expanded += int64(len(key))
	if name, ok := digestOf(e.value); ok {
		f, found, err := v.car.find(name)
		switch {
		case err != nil:
			return err
		case !found:
			return outcome.Bad(outcome.ReasonIncomplete, "record %.100q is missing", key)
		case f.size != notStored:
			v.expanded += int64(f.size)
		}
	} else if _, err := cid.Cast(e.value); err != nil {
		return outcome.Bad(outcome.ReasonBadAnswer, "record %.100q: %w", key, err)
	}
	if v.expanded > maxExpansion*v.car.received+freeExpansion {
		return outcome.Bad(outcome.ReasonTooLarge, "keys and records of %d bytes in %d bytes that were sent", v.expanded, v.car.received)
	}
	return v.paths.add(key, v.car.charge)
}
