package repo

import (
	"context"
	"errors"

	"github.com/bluesky-social/indigo/atproto/repo/mst"

	"appview/internal/network/outcome"
)

const (
	// entryRefSize is what an entry of an open node takes beside the node's block.
	entryRefSize = 8
	// leastEntry is less than any entry takes in its block: what a block claims to
	// hold is no more than it can.
	leastEntry = 16
	// longestLink is far more than any CID takes that names a record.
	longestLink = 128
)

// node is one node of a tree, read through once. Its keys are built in one buffer,
// one at a time, forwards or backwards.
type node struct {
	buf     []byte // for the block, where it is not in memory
	data    []byte // the block
	entries []entryRef
	left    []byte // CID of the node before the first key, or nil
	layer   int    // of its keys; -1: it has none
	key     []byte // the current key
	current int    // the entry that it belongs to
	next    int    // of a walk: how many entries are left; -1: nor is the node on the left
	right   bool   // of a walk: the node on the right of the last of these was visited
}

// entryRef is where an entry stands, and which one before it has the byte in front of
// those that it adds to the key.
type entryRef struct{ offset, base uint32 }

// entry is one key of a node with what hangs on it.
type entry struct {
	prefix int    // length of what the key shares with the one before it
	suffix []byte // what it adds
	value  []byte // CID of the record
	right  []byte // CID of the node between this key and the next, or nil
}

// tree reads the nodes of a CAR's tree. It has one buffer for each depth, and charges
// for all of them before it takes them.
type tree struct {
	car           *CAR
	path          []*node
	bufferedBytes int64 // of path
}

// open reads a node into the buffer of a depth, in place of any that was there. What it
// returns is in canonical form, with its keys in order and on one layer.
func (t *tree) open(ctx context.Context, depth int, id []byte) (*node, error) {
	name, ok := digestOf(id)
	if !ok {
		return nil, outcome.Bad(outcome.ReasonBadAnswer, "link to %x, which is no node", id)
	}
	f, found, err := t.car.find(name)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, outcome.Bad(outcome.ReasonIncomplete, "tree node %x is missing", id)
	case f.size == notStored:
		return nil, outcome.Bad(outcome.ReasonTooLarge, "tree node %x has more than %d bytes", id, maxBlock)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if depth == len(t.path) {
		t.path = append(t.path, new(node))
	}
	n := t.path[depth]
	if n.buf, err = ensureCapacity(t, n.buf, t.car.bufferSize(f), 1); err != nil {
		return nil, err
	}
	if n.data, err = t.car.read(f, n.buf); err != nil {
		return nil, err
	}
	err = n.parse(t)
	if bad, ok := errors.AsType[*outcome.BadContent](err); ok {
		return nil, outcome.Bad(bad.Reason, "tree node %x: %w", id, bad.Err)
	}
	return n, err
}

// ensureCapacity returns an empty buffer with room for n elements of a size, and charges
// for it where it is a new one.
func ensureCapacity[E any](t *tree, buf []E, n int, size int64) ([]E, error) {
	if n <= cap(buf) {
		return buf[:0], nil
	}
	more := int64(n-cap(buf)) * size
	if t.bufferedBytes += more; t.bufferedBytes > maxOpenNodes {
		return nil, outcome.Bad(outcome.ReasonTooLarge, "nodes of more than %d bytes, one under the other", maxOpenNodes)
	}
	if err := t.car.charge(more); err != nil {
		return nil, err
	}
	return make([]E, 0, n), nil
}

// parse reads {"e":[{"k":…,"p":…,"t":…,"v":…},…],"l":…}, in this order, which is the
// only one that DAG-CBOR allows. The last key is the current one then.
func (n *node) parse(t *tree) (err error) {
	d := decoder{in: n.data}
	if m := d.open(majorMap); m != 2 {
		d.fail("node of %d members", m)
	}
	d.name("e")
	count := d.open(majorArray)
	if d.err == nil && count > len(d.in)/leastEntry {
		d.fail("%w", errCutCBOR)
	}
	if d.err != nil {
		return outcome.Bad(outcome.ReasonBadAnswer, "%w", d.err)
	}
	if n.entries, err = ensureCapacity(t, n.entries, count, entryRefSize); err != nil {
		return err
	}
	n.key, n.layer, n.left = n.key[:0], -1, nil
	for range count {
		at := len(n.data) - len(d.in)
		if n.add(d.entry(), at, &d); d.err != nil {
			return outcome.Bad(outcome.ReasonBadAnswer, "entry %d: %w", len(n.entries), d.err)
		}
	}
	n.current = count - 1
	d.name("l")
	if !d.null() {
		n.left = d.link()
	}
	if d.end(); d.err != nil {
		return outcome.Bad(outcome.ReasonBadAnswer, "%w", d.err)
	}
	return nil
}

// add checks an entry against the key before it, which it replaces. A key that shares all it can with the
// one before it, and no more, is greater if the first byte that it adds is.
func (n *node) add(e entry, at int, d *decoder) {
	last := len(n.key)
	switch {
	case d.err != nil:
	case e.prefix > last:
		d.fail("key shares %d bytes with a key of %d", e.prefix, last)
	case e.prefix+len(e.suffix) > mst.MAX_KEY_BYTES:
		d.fail("key of %d bytes", e.prefix+len(e.suffix))
	case len(e.suffix) == 0:
		d.fail("key adds nothing to the one before it")
	case e.prefix < last && e.suffix[0] == n.key[e.prefix]:
		d.fail("key shares more with the one before it than its %d bytes", e.prefix)
	case e.prefix < last && e.suffix[0] < n.key[e.prefix]:
		d.fail("keys are not in order")
	case len(e.value) > longestLink:
		d.fail("link of %d bytes to a record", len(e.value))
	}
	if d.err != nil {
		return
	}
	n.entries = append(n.entries, entryRef{uint32(at), n.base(e.prefix)})
	n.key = append(n.key[:e.prefix], e.suffix...)
	layer := mst.HeightForKey(n.key)
	if n.layer < 0 {
		n.layer = layer
	}
	if layer != n.layer {
		d.fail("key %.100q is on layer %d, want %d", n.key, layer, n.layer)
	}
}

// base is the last entry so far whose own bytes begin before a position in the key.
func (n *node) base(position int) uint32 {
	i := uint32(len(n.entries))
	if position == 0 || i == 0 {
		return i
	}
	i--
	for n.entry(int(i)).prefix >= position {
		i = n.entries[i].base
	}
	return i
}

// entry reads one entry.
func (d *decoder) entry() (e entry) {
	if n := d.open(majorMap); n != 4 {
		d.fail("entry of %d members", n)
	}
	d.name("k")
	e.suffix = d.take(majorBytes)
	d.name("p")
	if n := d.number(); n > mst.MAX_KEY_BYTES {
		d.fail("key shares %d bytes", n)
	} else {
		e.prefix = int(n)
	}
	d.name("t")
	if !d.null() {
		e.right = d.link()
	}
	d.name("v")
	e.value = d.link()
	return e
}

// entry is the one with the number i, which parse has checked.
func (n *node) entry(i int) entry {
	d := decoder{in: n.data[n.entries[i].offset:]}
	return d.entry()
}

// rewind goes back to before the first entry.
func (n *node) rewind() { n.key, n.current = n.key[:0], -1 }

// forward goes to the next entry.
func (n *node) forward() (e entry, ok bool) {
	if n.current+1 >= len(n.entries) {
		return e, false
	}
	n.current++
	e = n.entry(n.current)
	n.key = append(n.key[:e.prefix], e.suffix...)
	return e, true
}

// back goes to the entry before the current one. The two share what the current one
// says that it does; the rest is what that one adds, and those that it builds upon.
// A key is never built twice: over all of a node that is as much work as forwards.
func (n *node) back() {
	shared := n.entry(n.current).prefix
	n.current--
	at := n.current
	e := n.entry(at)
	n.key = append(n.key[:e.prefix], e.suffix...)
	for end := e.prefix; end > shared; {
		at = int(n.entries[at].base)
		b := n.entry(at)
		copy(n.key[b.prefix:end], b.suffix)
		end = b.prefix
	}
}
