package repo

import (
	"bytes"
	"context"
)

// walker visits the records of a verified tree, the greatest key first. It holds one node
// of each layer, and reads each node once, as long as the keys it is asked for descend.
type walker struct {
	tree
	root    []byte // CID of the topmost node
	depth   int    // open nodes, each under the one before it
	bound   []byte // no key lies between this one and key; nil: the walk has not begun
	key     []byte // the current one, in the memory of a node; nil: none lies below bound
	current entry
}

// seek moves to the greatest key below one, and reports whether there is any.
func (w *walker) seek(ctx context.Context, below []byte) (bool, error) {
	if w.bound == nil || bytes.Compare(w.bound, below) < 0 {
		w.depth = 0
		if err := w.push(ctx, w.root); err != nil {
			return false, err
		}
		return w.advance(ctx, below)
	}
	if w.key == nil || bytes.Compare(w.key, below) < 0 {
		return w.key != nil, nil
	}
	return w.advance(ctx, below)
}

// advance moves on to the greatest key below one, of those that it has not passed.
func (w *walker) advance(ctx context.Context, below []byte) (bool, error) {
	w.bound = append(w.bound[:0], below...)
	below = w.bound
	for w.key = nil; w.depth > 0; {
		n := w.path[w.depth-1]
		switch {
		case n.next < 0:
			w.depth--
		case n.next == 0:
			n.next--
			if n.left == nil {
				continue
			}
			if err := w.push(ctx, n.left); err != nil {
				return false, err
			}
		case !n.right:
			n.right = true
			if n.current >= n.next {
				n.back()
			}
			e := n.entry(n.current)
			if e.right == nil || bytes.Compare(n.key, below) >= 0 {
				continue // nothing behind this key is wanted
			}
			if err := w.push(ctx, e.right); err != nil {
				return false, err
			}
		default:
			n.next, n.right = n.next-1, false
			if bytes.Compare(n.key, below) < 0 {
				w.key, w.current = n.key, n.entry(n.current)
				return true, nil
			}
		}
	}
	return false, nil
}

// push opens a node under the current one.
func (w *walker) push(ctx context.Context, id []byte) error {
	n, err := w.open(ctx, w.depth, id)
	if err != nil {
		return err
	}
	w.depth++
	n.next, n.right = len(n.entries), false
	return nil
}
