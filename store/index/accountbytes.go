package index

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
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
func (c Change) rejectedBytes() int64 {
	n := c.Before.Tally.Rejected
	for _, seg := range c.Reading.Segments {
		n += int64(len(seg.Rejected))
	}
	return n * markBytes
}

// fits fails with ErrAccountFull if a change would make the account larger than most. What
// makes it no larger fits always: an account may be past a bound that was lowered.
func (r *repoRow) fits(c Change, most int64) error {
	marks := int64(0) // what is held of the listing besides
	if c.Step {
		marks = c.rejectedBytes()
	}
	if r.repo.Bytes+mostGrowth(c.Reading)+marks <= most {
		return nil
	}
	more, err := r.growth(c)
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
func (r *repoRow) growth(c Change) (n int64, err error) {
	known := map[syntax.NSID]bool{}
	for _, seg := range c.Reading.Segments {
		if seg, err = c.Marks.unmarked(c.DID, seg); err != nil {
			return 0, err
		}
		b, err := r.g.collection(seg.Collection, false)
		if err != nil {
			return 0, err
		}
		for _, l := range seg.Records {
			p, err := r.place(b, seg.Collection, l, c.Reading.Rev, c.Reading.Source)
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
