package repo

import (
	"bytes"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/record"
)

// paths are the keys of a tree, sorted into those that are a record's path, a collection
// and a record key, and those that are not.
type paths struct {
	collections []syntax.NSID // that have records, in the order of their keys
	rejected    map[syntax.NSID]*Rejects
}

// MaxCollections bounds the collections of one repo.
const MaxCollections = 1000

// Rejects are what a repo holds that no record can be addressed by.
type Rejects struct {
	Count int
	First string // one of them, as the host sent it: hardly any length, and any bytes
}

// Add counts n more of them. first is one, for the case that there was none before.
func (r Rejects) Add(n int, first string) Rejects {
	if r.Count == 0 {
		r.First = first
	}
	r.Count += n
	return r
}

// pathSize is what is noted of a collection beside its name.
const pathSize = 64

// add sorts the next key, and charges for what it notes of it. Keys come in order,
// so the records of a collection come one after the other.
func (p *paths) add(key []byte, charge func(int64) error) error {
	collection, rkey, _ := bytes.Cut(key, []byte{'/'})
	n := len(p.collections)
	known := n > 0 && string(p.collections[n-1]) == string(collection)
	switch {
	case !known && !record.ValidCollection(collection):
		return p.reject(nil, key, charge)
	case !record.ValidRecordKey(rkey):
		return p.reject(collection, key, charge)
	case known:
		return nil
	case n == MaxCollections:
		return outcome.Bad(outcome.ReasonTooLarge, "more than %d collections", MaxCollections)
	}
	p.collections = append(p.collections, syntax.NSID(collection))
	return charge(int64(len(collection)) + pathSize)
}

// reject counts a key that is no record's path under the collection that it names.
func (p *paths) reject(collection, key []byte, charge func(int64) error) error {
	if r, known := p.rejected[syntax.NSID(collection)]; known {
		r.Count++
		return nil
	}
	if len(p.rejected) > MaxCollections {
		return outcome.Bad(outcome.ReasonTooLarge, "more than %d collections", MaxCollections)
	}
	if p.rejected == nil {
		p.rejected = make(map[syntax.NSID]*Rejects)
	}
	p.rejected[syntax.NSID(collection)] = &Rejects{Count: 1, First: string(key)}
	return charge(int64(len(collection)+len(key)) + pathSize)
}

// allValid reports whether every key is a record's path.
func (p *paths) allValid() bool { return len(p.rejected) == 0 }

// rejectedUnder are the rejects under some collections, or all there are.
func (p *paths) rejectedUnder(collections []syntax.NSID) (all Rejects) {
	for c, r := range p.rejected {
		if len(collections) == 0 || slices.Contains(collections, c) {
			all = all.Add(r.Count, r.First)
		}
	}
	return all
}
