package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"os"

	"appview/internal/datadir"
)

// bbolt believes what a page says: it maps the file, follows every number in it,
// and dies of a fault, an endless recursion, or goes on with what it finds there.
// So the file is looked at first, by reading it, where nothing can go wrong that is
// not an error: here the few pages that it opens the file by, and in pagewalk.go
// all others, for Check.

// Layout of bbolt's pages. Numbers are in the order of this machine.
const (
	boltMagic      = 0xED0CDAED
	boltHeaderLen  = 16
	boltMetaLen    = 64 // from magic to checksum
	boltMetaSumOff = 56
	boltMaxPage    = 64 << 10

	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltFreelist = 0x10

	boltManyFree   = 0xFFFF // a count that stands in the first number instead
	boltNoFreelist = ^uint64(0)
)

// pageFile is a bbolt file as one of its transactions sees it.
type pageFile struct {
	r        io.ReaderAt
	txid     uint64
	pageSize uint64
	pages    uint64 // in use or free; what is behind them is nothing
	root     uint64 // page of the bucket of buckets
	freelist uint64 // page
}

// inspect refuses a file that bbolt would stumble over while it opens it.
func (db *DB) inspect() (err error) {
	f, err := db.dir.OpenFile(db.name(), os.O_RDONLY, 0)
	switch {
	case errors.Is(err, os.ErrNotExist) && !db.cfg.ReadOnly:
		return nil
	case errors.Is(err, datadir.ErrLink):
		return fmt.Errorf("%w: name the directory of the file that it leads to with --data-dir", err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 && !db.cfg.ReadOnly {
		return nil // bbolt makes a new one
	}
	var at uint64
	for {
		p, err := readMeta(f)
		if err != nil {
			return err
		}
		if uint64(info.Size())/p.pageSize < p.pages {
			return fmt.Errorf("%w: %d bytes, but %d are in use: it was cut short: restore a backup", ErrDamaged, info.Size(), p.pages*p.pageSize)
		}
		if _, err = p.free(); err == nil {
			return nil
		}
		if p.txid == at {
			return fmt.Errorf("%w: restore a backup", err)
		}
		// Another process may have the file, and have given the page to something
		// else in the meantime. That it has the file is for the lock to tell.
		at = p.txid
	}
}

// readMeta reads the newest of the two meta pages that is whole. The second is
// looked for only where it must be: anybody can put what looks like one into a
// record.
func readMeta(r io.ReaderAt) (*pageFile, error) {
	head := make([]byte, boltMaxPage+boltHeaderLen+boltMetaLen)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	first := metaAt(r, head, 0)
	for size := uint64(1 << 9); size <= boltMaxPage; size *= 2 {
		if first != nil && first.pageSize != size {
			continue
		}
		second := metaAt(r, head, size)
		if second != nil && second.pageSize == size && (first == nil || second.txid > first.txid) {
			return second, nil
		}
	}
	if first == nil {
		return nil, fmt.Errorf("%w: no valid meta page: it is no database, or its beginning is lost: restore a backup", ErrDamaged)
	}
	return first, nil
}

// metaAt reads the meta page at an offset, nil if it is not whole.
func metaAt(r io.ReaderAt, head []byte, off uint64) *pageFile {
	if uint64(len(head)) < off+boltHeaderLen+boltMetaLen {
		return nil
	}
	meta := head[off+boltHeaderLen:][:boltMetaLen]
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:boltMetaSumOff]) // a hash never fails
	if binary.NativeEndian.Uint32(meta) != boltMagic || sum.Sum64() != binary.NativeEndian.Uint64(meta[boltMetaSumOff:]) {
		return nil
	}
	size := uint64(binary.NativeEndian.Uint32(meta[8:]))
	if bits.OnesCount64(size) != 1 || size < 1<<9 || size > boltMaxPage {
		return nil
	}
	return &pageFile{
		r: r, pageSize: size, root: binary.NativeEndian.Uint64(meta[16:]), freelist: binary.NativeEndian.Uint64(meta[32:]),
		pages: binary.NativeEndian.Uint64(meta[40:]), txid: binary.NativeEndian.Uint64(meta[48:]),
	}
}

// page is one page with those that it flows over into.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte
}

// MaxRowLen is more than any row of ours takes.
const MaxRowLen = 64 << 20

func (p *pageFile) page(id uint64) (page, error) {
	if id < 2 || id >= p.pages {
		return page{}, fmt.Errorf("%w: page %d of %d is pointed to", ErrDamaged, id, p.pages)
	}
	data := make([]byte, p.pageSize)
	if err := p.read(data, id); err != nil {
		return page{}, err
	}
	pg := page{id: binary.NativeEndian.Uint64(data), flags: binary.NativeEndian.Uint16(data[8:]), count: int(binary.NativeEndian.Uint16(data[10:]))}
	over := uint64(binary.NativeEndian.Uint32(data[12:]))
	switch {
	case pg.id != id:
		return page{}, fmt.Errorf("%w: page %d says that it is page %d", ErrDamaged, id, pg.id)
	case over >= p.pages-id, over*p.pageSize > MaxRowLen:
		return page{}, fmt.Errorf("%w: page %d flows over into %d pages of %d", ErrDamaged, id, over, p.pages)
	}
	if over > 0 {
		data = append(data, make([]byte, over*p.pageSize)...)
		if err := p.read(data[p.pageSize:], id+1); err != nil {
			return page{}, err
		}
	}
	pg.data = data
	return pg, nil
}

func (p *pageFile) read(data []byte, id uint64) error {
	if _, err := p.r.ReadAt(data, int64(id*p.pageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	return nil
}

// free lists the free pages. Were one of them in use, the next commits would write
// over it.
func (p *pageFile) free() ([]uint64, error) {
	if p.freelist == boltNoFreelist {
		return nil, nil
	}
	pg, err := p.page(p.freelist)
	if err != nil {
		return nil, fmt.Errorf("list of free pages: %w", err)
	}
	count, at := uint64(pg.count), uint64(boltHeaderLen)
	if pg.flags == boltFreelist && count == boltManyFree {
		count, at = binary.NativeEndian.Uint64(pg.data[at:]), at+8
	}
	if pg.flags != boltFreelist || count > (uint64(len(pg.data))-at)/8 {
		return nil, fmt.Errorf("%w: page %d is no list of %d free pages", ErrDamaged, pg.id, count)
	}
	list := make([]uint64, count)
	last := uint64(1)
	for i := range list {
		id := binary.NativeEndian.Uint64(pg.data[at+8*uint64(i):])
		if id <= last || id >= p.pages || id == p.root || id == p.freelist {
			return nil, fmt.Errorf("%w: the list of free pages names page %d after %d, of %d", ErrDamaged, id, last, p.pages)
		}
		list[i], last = id, id
	}
	return list, nil
}
