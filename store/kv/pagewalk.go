package kv

import (
	"context"
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// Layout of what is in a page. A bucket's head is the value of its key: the page of
// its root, or none and the root itself.
const (
	boltElementLen = 16
	boltBucketLen  = 16
	boltBucketFlag = 0x01
)

// pagesOf is the file as a transaction sees it, for as long as it is open. The list
// of free pages belongs to it only while nobody has committed anything since.
func (db *DB) pagesOf(tx *bbolt.Tx) *pageFile {
	size := uint64(db.bolt.Info().PageSize)
	p := &pageFile{
		r: db.file, txid: uint64(tx.ID()), pageSize: size, pages: uint64(tx.Size()) / size,
		root: uint64(tx.Cursor().Bucket().Root()), freelist: boltNoFreelist,
	}
	if now, err := readMeta(db.file); err == nil && now.txid == p.txid {
		p.freelist = now.freelist
	}
	return p
}

// walker goes over the pages that can be reached.
type walker struct {
	*pageFile

	skims bool
	seen  []uint64 // a bit for each page
	found func(format string, args ...any)
}

// walk proves that bbolt may follow every number in the file: each leads to a page
// of the right kind that nothing else leads to, and what a page holds lies within
// it; and no page that is in use is listed as free. What is not so is found.
func (p *pageFile) walk(ctx context.Context, found func(format string, args ...any)) error {
	return (&walker{pageFile: p, found: found}).all(ctx)
}

// skim proves as much of the pages that lead to others, one in some hundreds. What
// is wrong with the rest is for whoever reads it to notice, and can be noticed: only
// a page that leads on can lead in a circle.
func (p *pageFile) skim(ctx context.Context, found func(format string, args ...any)) error {
	return (&walker{pageFile: p, found: found, skims: true}).all(ctx)
}

func (w *walker) all(ctx context.Context) error {
	w.seen = make([]uint64, w.pages/64+1)
	free, err := w.free()
	if err != nil {
		w.found("%w", err)
	} else if w.freelist != boltNoFreelist {
		w.visit(w.freelist, 1)
	}
	if err := w.tree(ctx, w.root, &shape{}, 0); err != nil {
		return err
	}
	for _, id := range free {
		if w.seen[id/64]&(1<<(id%64)) != 0 {
			w.found("page %d is in use, and listed as free", id)
		}
	}
	return nil
}

// visit notes a page and those that it flows over into, and reports whether it is
// the first time.
func (w *walker) visit(id, pages uint64) bool {
	for end := id + pages; id < end; id++ {
		if w.seen[id/64]&(1<<(id%64)) != 0 {
			w.found("page %d is in two places", id)
			return false
		}
		w.seen[id/64] |= 1 << (id % 64)
	}
	return true
}

// shape is what the first leaf of a tree tells of all others: bbolt keeps them at one
// depth, and we keep no rows beside buckets.
type shape struct {
	known   bool
	depth   int
	buckets bool
}

// tree looks at a page and those below it. It never goes down a page twice, so it
// ends.
func (w *walker) tree(ctx context.Context, id uint64, s *shape, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.skims && s.known && !s.buckets && depth == s.depth && id < w.pages {
		w.visit(id, 1)
		return nil
	}
	pg, err := w.page(id)
	if err != nil {
		w.found("%w", err)
		return nil
	}
	if !w.visit(pg.id, uint64(len(pg.data))/w.pageSize) {
		return nil
	}
	switch pg.flags {
	case boltLeaf:
		if !s.known {
			*s = shape{known: true, depth: depth, buckets: w.holdsBuckets(pg)}
		}
		if depth != s.depth {
			w.found("page %d is at depth %d of a tree, where others are at %d", id, depth, s.depth)
		}
		return w.leaf(ctx, pg)
	case boltBranch:
		return w.branch(ctx, pg, s, depth)
	default:
		w.found("page %d is of kind %#x, where a tree goes on", id, pg.flags)
		return nil
	}
}

func (w *walker) branch(ctx context.Context, pg page, s *shape, depth int) error {
	if pg.count == 0 {
		w.found("page %d leads nowhere", pg.id)
	}
	for i := range pg.count {
		e := w.element(pg, i)
		if e == nil {
			return nil
		}
		if _, ok := w.row(pg, i, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), 0); !ok {
			return nil
		}
		if err := w.tree(ctx, binary.NativeEndian.Uint64(e[8:]), s, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// holdsBuckets reports whether the rows of a leaf are buckets.
func (w *walker) holdsBuckets(pg page) bool {
	return pg.count > 0 && len(pg.data) >= boltHeaderLen+boltElementLen &&
		binary.NativeEndian.Uint32(pg.data[boltHeaderLen:])&boltBucketFlag != 0
}

// leaf looks at the rows of a page, which may be one that stands within another.
func (w *walker) leaf(ctx context.Context, pg page) error {
	for i := range pg.count {
		e := w.element(pg, i)
		if e == nil {
			return nil
		}
		value, ok := w.row(pg, i, binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:]))
		if !ok {
			return nil
		}
		if binary.NativeEndian.Uint32(e)&boltBucketFlag == 0 {
			continue
		}
		if err := w.head(ctx, pg.id, value); err != nil {
			return err
		}
	}
	return nil
}

// head looks at a bucket, given its head on a page.
func (w *walker) head(ctx context.Context, id uint64, head []byte) error {
	if len(head) < boltBucketLen {
		w.found("page %d has the head of a bucket of %d bytes", id, len(head))
		return nil
	}
	if root := binary.NativeEndian.Uint64(head); root != 0 {
		return w.tree(ctx, root, &shape{}, 0)
	}
	root := head[boltBucketLen:]
	if len(root) < boltHeaderLen || binary.NativeEndian.Uint16(root[8:]) != boltLeaf {
		w.found("page %d has a bucket within it that is none", id)
		return nil
	}
	return w.leaf(ctx, page{id: id, count: int(binary.NativeEndian.Uint16(root[10:])), data: root})
}

// element is the ith element of a page, nil if the page cannot hold as many as it
// says.
func (w *walker) element(pg page, i int) []byte {
	if boltHeaderLen+pg.count*boltElementLen > len(pg.data) {
		w.found("page %d has no room for %d elements", pg.id, pg.count)
		return nil
	}
	return pg.data[boltHeaderLen+i*boltElementLen:][:boltElementLen]
}

// row returns the value of an element's row, and reports whether the row lies within
// the page, behind the elements.
func (w *walker) row(pg page, i int, pos, key, value uint32) ([]byte, bool) {
	at := uint64(boltHeaderLen+i*boltElementLen) + uint64(pos)
	end := at + uint64(key) + uint64(value)
	if key == 0 || at < uint64(boltHeaderLen+pg.count*boltElementLen) || end > uint64(len(pg.data)) {
		w.found("page %d has row %d of %d and %d bytes at %d, outside itself", pg.id, i, key, value, at)
		return nil, false
	}
	return pg.data[end-uint64(value) : end], true
}
