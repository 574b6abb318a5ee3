package network

import (
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
)

// repoPaths are the keys of a tree, sorted into those that are a record's path, a
// collection and a record key, and those that are not.
type repoPaths struct {
	collections []syntax.NSID // that have records, in the order of their keys
	rejected    map[syntax.NSID]Rejects
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

// noCollection stands for what names no collection in repoPaths.rejected.
const noCollection = syntax.NSID("")

// add sorts the next key in. Keys come in order, so the records of a collection come
// one after the other.
func (p *repoPaths) add(key string) error {
	collection, rkey, _ := strings.Cut(key, "/")
	n := len(p.collections)
	known := n > 0 && p.collections[n-1].String() == collection
	switch {
	case !known && !isNSID(collection):
		return p.reject(noCollection, key)
	case !isRecordKey(rkey):
		return p.reject(syntax.NSID(collection), key)
	case known:
		return nil
	case n == maxCollections:
		return spoiled(ReasonTooLarge, "more than %d collections", maxCollections)
	}
	p.collections = append(p.collections, syntax.NSID(collection))
	return nil
}

// reject counts a key that is no record's path under the collection that it names.
func (p *repoPaths) reject(collection syntax.NSID, key string) error {
	if p.rejected == nil {
		p.rejected = make(map[syntax.NSID]Rejects)
	}
	r, known := p.rejected[collection]
	if !known && len(p.rejected) > maxCollections {
		return spoiled(ReasonTooLarge, "more than %d collections", maxCollections)
	}
	p.rejected[collection] = r.add(1, key)
	return nil
}

// of are the rejects under some collections, or all there are.
func (p *repoPaths) of(collections []syntax.NSID) (all Rejects) {
	for c, r := range p.rejected {
		if len(collections) == 0 || slices.Contains(collections, c) {
			all = all.add(r.Count, r.First)
		}
	}
	return all
}

func isNSID(s string) bool {
	_, err := record.ParseCollection(s)
	return err == nil
}

func isRecordKey(s string) bool {
	_, err := syntax.ParseRecordKey(s)
	return err == nil
}
