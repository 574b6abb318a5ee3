package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// What one account takes of the file is counted as its rows are written, in its repo's
// row, and bounded: whoever may write records could fill the disk otherwise. Each kind of
// row is sized beside the code that writes it. Free pages, and the room that is left in
// pages, are nobody's.

const (
	// DefaultMaxAccountBytes is what one account may take of the file.
	DefaultMaxAccountBytes = 1 << 30
	// LeastMaxAccountBytes has room for any record.
	LeastMaxAccountBytes = 2 << 20
)

// ErrAccountFull says that a reading would make an account larger than one may be.
var ErrAccountFull = errors.New("the account would take too much of the database")

// leafElement is what bbolt stores of an entry beside its key and its value.
const leafElement = 16

// entryBytes is what an entry takes whose key and value are so long.
func entryBytes(key, value int) int64 { return int64(leafElement) + int64(key) + int64(value) }

// collectionBytes is what it takes that an account has, or had, records in a collection:
// its member in the repo's row, and its name in the buckets of all records, logs,
// deletions, key indexes, watermarks and counts, where the account may be the first. The
// names stay when the records are deleted.
func collectionBytes(c syntax.NSID) int64 { return 7*entryBytes(len(c), 0) + 256 }

// rejectedBytes is the most that the marks take of entries that were listed in steps and
// are not held, with those of a reading. The marks of records are few bytes beside what
// the records take themselves.
func rejectedBytes(before Tally, read Reading) int64 {
	n := before.Rejected
	for _, seg := range read.Segments {
		n += int64(len(seg.Rejected))
	}
	return n * markBytes
}

// fits refuses, with ErrAccountFull, a reading that would make the account larger than
// most. What makes it no larger fits always: an account may be past a bound that was
// lowered. marks is what is held of the listing besides. Nothing is written.
func (r *repoRow) fits(w *workBuckets, read Reading, marks, most int64) error {
	if r.repo.Bytes+mostGrowth(read)+marks <= most {
		return nil
	}
	more, err := r.growth(w, read)
	if err != nil {
		return err
	}
	if more <= 0 && marks == 0 || r.repo.Bytes+more+marks <= most {
		return nil
	}
	return fmt.Errorf("%w: it takes %d bytes, would take %d more, and may take %d (--max-account-bytes)",
		ErrAccountFull, r.repo.Bytes, more+marks, most)
}

// mostGrowth is by how much a reading makes an account larger at most: if all of it is new.
func mostGrowth(read Reading) (n int64) {
	for _, seg := range read.Segments {
		n += collectionBytes(seg.Collection)
		for _, l := range seg.Records {
			n += recordBytes(ridLen+len(l.RKey), recordRowLen(l.Body))
		}
	}
	return n
}

// growth is by how much a reading makes the account larger. What earlier steps have listed
// is not written again.
func (r *repoRow) growth(w *workBuckets, read Reading) (n int64, err error) {
	known := map[syntax.NSID]bool{}
	for _, seg := range read.Segments {
		if seg, err = w.unmarked(r.repo.DID, seg); err != nil {
			return 0, err
		}
		b, err := r.g.collection(seg.Collection, false)
		if err != nil {
			return 0, err
		}
		for _, l := range seg.Records {
			p, err := r.place(b, seg.Collection, l, read.Rev, read.Source)
			if err != nil {
				return 0, err
			}
			n += p.growth()
			if _, had := r.repo.Collections[seg.Collection]; !had && !known[seg.Collection] {
				known[seg.Collection] = true
				n += collectionBytes(seg.Collection)
			}
		}
	}
	return n, nil
}

// growth is by how many bytes it makes an account larger.
func (p placement) growth() int64 {
	switch p.result {
	case created:
		return recordBytes(len(p.key), recordRowLen(p.body))
	case updated:
		return int64(recordRowLen(p.body) - p.oldLen)
	default:
		return 0
	}
}

// tooLarge is the settlement in place of t of a repo whose account is full: nothing of the
// reading is written, and it shows nothing to be absent. The host's word on the account
// counts, so that what is held is served.
func (t Settlement) tooLarge(why error) Settlement {
	return Settlement{
		DID: t.DID, Attempts: t.Attempts, Reading: Reading{Host: t.Reading.Host}, Account: t.Account,
		Verdict: Verdict{Class: ClassFailed, Reason: ReasonTooLarge, Detail: why.Error()},
	}
}

// giveBack notes that rows of a repo's were deleted.
func (g *group) giveBack(n rid, bytes int64) error {
	row, err := repos.get(repos.bucket(g.tx), ridKey(n))
	if err != nil {
		return fmt.Errorf("repo %d: %w", n, err)
	}
	r, err := g.repo(row.DID)
	if err != nil {
		return err
	}
	r.repo.Bytes -= bytes
	return r.save()
}

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
	last, _ := repos.bucket(tx.Tx).Cursor().Last()
	if last == nil {
		return nil
	}
	end := uint64(binary.BigEndian.Uint32(last)) + 1
	if z.next == z.to {
		z.from, z.to = z.next, min(z.next+uint64(tx.Bound(sizedRepos)), end)
		if z.sizes, err = sizesOf(tx.Tx, z.from, z.to); err != nil {
			return err
		}
	}
	to := min(z.next+uint64(tx.Bound(sizedStep)), z.to)
	if err := putSizes(tx.Tx, z.next, to, z.sizes[min(z.next-z.from, uint64(len(z.sizes))):]); err != nil {
		return err
	}
	if z.next = to; to < end {
		return kv.ErrAgain
	}
	return nil
}

// sizesOf adds up what the records, and the notes of deletions, take of the repos from a
// number on and before another.
func sizesOf(tx *bbolt.Tx, from, to uint64) ([]int64, error) {
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
				return nil, fmt.Errorf("%w: record key %x of %s", errRow, k, name)
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
func eachDeletion(b *bbolt.Bucket, f func(n rid, bytes int64)) error {
	return b.ForEach(func(k, row []byte) error {
		if len(row) <= deletionHead+ridLen {
			return fmt.Errorf("%w: deletion %x has %d bytes", errRow, k, len(row))
		}
		f(rid(binary.BigEndian.Uint32(row[deletionHead:])), deletionBytes(len(row)))
		return nil
	})
}

// putSizes writes the sizes of the repos from a number on and before another. Those that
// hold nothing may be missing at the end of sizes.
func putSizes(tx *bbolt.Tx, from, to uint64, sizes []int64) error {
	b := repos.bucket(tx)
	changed := map[rid]Repo{}
	c := b.Cursor()
	for k, row := c.Seek(ridKey(rid(from))); k != nil; k, row = c.Next() {
		n := binary.BigEndian.Uint32(k)
		if uint64(n) >= to {
			break
		}
		repo, err := repos.decode(k, row)
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
		if err := repos.put(b, ridKey(n), changed[n]); err != nil {
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

// deletions sizes the notes of deletions.
func (c *checker) deletions(ctx context.Context) error {
	for _, name := range collectionNames(c.tx) {
		b := c.tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
		if b == nil {
			continue
		}
		if err := eachDeletion(b, func(n rid, bytes int64) { c.sizes[n] += bytes }); err != nil {
			c.found("deletions of %s: %w", name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// accountSizes checks the sizes of repos against their rows.
func (c *checker) accountSizes(context.Context) error {
	for id, repo := range c.repos {
		if want := c.sizes[id] + repo.namesBytes(); repo.Bytes != want {
			c.found("repo %s takes %d bytes by its row, %d by what there is", repo.DID, repo.Bytes, want)
		}
	}
	return nil
}
