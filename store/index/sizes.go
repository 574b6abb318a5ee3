package index

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// Bounds of the memory that addSizes takes.
const (
	sizedRepos = 1 << 20 // whose sizes are added up at a time
	sizedStep  = 5_000   // rows written in one transaction
)

// addSizes gives every repo its size, some in each step. The file does not say meanwhile
// that it is of the format: a program of the format before drops sizes, which it does not
// know, of what it writes.
type addSizes struct {
	next     uint64  // repo to go on with
	from, to uint64  // repos whose sizes are added up
	sizes    []int64 // of these; some may be missing at the end, which hold nothing
}

// step fails with kv.ErrAgain until it has come to the last repo.
func (z *addSizes) step(tx *kv.Tx) (err error) {
	last, _ := repos.Bucket(tx).Cursor().Last()
	if last == nil {
		return nil
	}
	end := uint64(binary.BigEndian.Uint32(last)) + 1
	if z.next == z.to {
		z.from, z.to = z.next, min(z.next+uint64(tx.Bound(sizedRepos)), end)
		if z.sizes, err = sizesOf(tx, z.from, z.to); err != nil {
			return err
		}
	}
	to := min(z.next+uint64(tx.Bound(sizedStep)), z.to)
	if err := putSizes(tx, z.next, to, z.sizes[min(z.next-z.from, uint64(len(z.sizes))):]); err != nil {
		return err
	}
	if z.next = to; to < end {
		return kv.ErrAgain
	}
	return nil
}

// sizesOf adds up what the records, and the notes of deletions, take of the repos from a
// number on and before another.
func sizesOf(tx *kv.Tx, from, to uint64) ([]int64, error) {
	var sizes []int64
	add := func(n uint64, bytes int64) {
		if n -= from; n >= uint64(len(sizes)) {
			sizes = append(sizes, make([]int64, n+1-uint64(len(sizes)))...)
		}
		sizes[n] += bytes
	}
	for _, name := range collectionNames(tx) {
		c := recordsOf(tx, syntax.NSID(name)).Cursor()
		for k, row := c.Seek(ridKey(rid(from))); k != nil; k, row = c.Next() {
			if len(k) <= ridLen {
				return nil, fmt.Errorf("%w: record key %x of %s", kv.ErrRow, k, name)
			}
			n := uint64(binary.BigEndian.Uint32(k))
			if n >= to {
				break
			}
			add(n, recordBytes(len(k), len(row)))
		}
		if b := tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name)); b != nil {
			if err := eachDeletion(b, func(n rid, bytes int64) {
				if uint64(n) >= from && uint64(n) < to {
					add(uint64(n), bytes)
				}
			}); err != nil {
				return nil, fmt.Errorf("deletions of %s: %w", name, err)
			}
		}
	}
	return sizes, nil
}

// eachDeletion calls f with the repo of each note of a deletion, and what the note takes.
func eachDeletion(b *kv.Bucket, f func(n rid, bytes int64)) error {
	return b.ForEach(func(k, row []byte) error {
		if len(row) <= deletionHead+ridLen {
			return fmt.Errorf("%w: deletion %x has %d bytes", kv.ErrRow, k, len(row))
		}
		f(rid(binary.BigEndian.Uint32(row[deletionHead:])), deletionBytes(len(row)))
		return nil
	})
}

// putSizes writes the sizes of the repos from a number on and before another. Those that
// hold nothing may be missing at the end of sizes.
func putSizes(tx *kv.Tx, from, to uint64, sizes []int64) error {
	b := repos.Bucket(tx)
	changed := map[rid]Repo{}
	c := b.Cursor()
	for k, row := c.Seek(ridKey(rid(from))); k != nil; k, row = c.Next() {
		n := binary.BigEndian.Uint32(k)
		if uint64(n) >= to {
			break
		}
		repo, err := repos.Decode(k, row)
		if err != nil {
			return fmt.Errorf("repo %x: %w", k, err)
		}
		size := repo.namesBytes()
		if at := uint64(n) - from; at < uint64(len(sizes)) {
			size += sizes[at]
		}
		if size != repo.Bytes {
			repo.Bytes = size
			changed[rid(n)] = repo
		}
	}
	for _, n := range slices.Sorted(maps.Keys(changed)) {
		if err := repos.Put(b, ridKey(n), changed[n]); err != nil {
			return err
		}
	}
	return nil
}

// namesBytes is what the names of the repo's collections take.
func (r Repo) namesBytes() (n int64) {
	for c := range r.Collections {
		n += collectionBytes(c)
	}
	return n
}
