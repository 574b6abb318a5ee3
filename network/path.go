package network

import (
	"bytes"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
)

// repoPaths are the keys of a tree, sorted into those that are a record's path, a
// collection and a record key, and those that are not.
type repoPaths struct {
	collections []syntax.NSID // that have records, in the order of their keys
	rejected    map[syntax.NSID]*Rejects
}

// Rejects are what a repo holds that no record can be addressed by.
type Rejects struct {
	Count int
	First string // one of them, as the host sent it: hardly any length, and any bytes
}

func (r Rejects) add(n int, first string) Rejects {
	if r.Count == 0 {
		r.First = first
	}
	r.Count += n
	return r
}

// pathSize is what is noted of a collection beside its name.
const pathSize = 64

// add sorts the next key in, and charges for what it notes of it. Keys come in order,
// so the records of a collection come one after the other.
func (p *repoPaths) add(key []byte, charge func(int64) error) error {
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
	case n == maxCollections:
		return spoiled(ReasonTooLarge, "more than %d collections", maxCollections)
	}
	p.collections = append(p.collections, syntax.NSID(collection))
	return charge(int64(len(collection)) + pathSize)
}

// reject counts a key that is no record's path under the collection that it names.
func (p *repoPaths) reject(collection, key []byte, charge func(int64) error) error {
	if r, known := p.rejected[syntax.NSID(collection)]; known {
		r.Count++
		return nil
	}
	if len(p.rejected) > maxCollections {
		return spoiled(ReasonTooLarge, "more than %d collections", maxCollections)
	}
	if p.rejected == nil {
		p.rejected = make(map[syntax.NSID]*Rejects)
	}
	p.rejected[syntax.NSID(collection)] = &Rejects{Count: 1, First: string(key)}
	return charge(int64(len(collection)+len(key)) + pathSize)
}

// sound reports whether every key is a record's path.
func (p *repoPaths) sound() bool { return len(p.rejected) == 0 }

// of are the rejects under some collections, or all there are.
func (p *repoPaths) of(collections []syntax.NSID) (all Rejects) {
	for c, r := range p.rejected {
		if len(collections) == 0 || slices.Contains(collections, c) {
			all = all.add(r.Count, r.First)
		}
	}
	return all
}
