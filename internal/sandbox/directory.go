package sandbox

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// directory is what the relay's collection directory remembers: which repos had
// a record of a collection, in the order in which it first saw them. Nothing
// leaves it by itself.
type directory struct {
	mu        sync.RWMutex
	listings  map[syntax.NSID]*listing
	forgotten map[syntax.DID]bool
}

type listing struct {
	dids []syntax.DID
	seen map[syntax.DID]bool
}

func newDirectory() *directory {
	return &directory{listings: make(map[syntax.NSID]*listing), forgotten: make(map[syntax.DID]bool)}
}

func (d *directory) note(did syntax.DID, collection syntax.NSID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.listings[collection]
	if l == nil {
		l = &listing{seen: make(map[syntax.DID]bool)}
		d.listings[collection] = l
	}
	if !l.seen[did] {
		l.seen[did] = true
		l.dids = append(l.dids, did)
	}
}

func (d *directory) forget(did syntax.DID, forgotten bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if forgotten {
		d.forgotten[did] = true
		return
	}
	delete(d.forgotten, did)
}

func (d *directory) isForgotten(did syntax.DID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.forgotten[did]
}

// page lists up to limit DIDs from a position on, and the position after them.
// A full page always has a next position, also when nothing is left.
func (d *directory) page(collection syntax.NSID, from, limit int) (dids []syntax.DID, next int, more bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	l := d.listings[collection]
	if l == nil {
		return nil, 0, false
	}
	for next = from; next < len(l.dids); {
		did := l.dids[next]
		next++
		if d.forgotten[did] {
			continue
		}
		if dids = append(dids, did); len(dids) == limit {
			return dids, next, true
		}
	}
	return dids, next, false
}

// count is how many repos the directory has seen with a collection. It counts
// those too that it does not list any more.
func (d *directory) count(collection syntax.NSID) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if l := d.listings[collection]; l != nil {
		return len(l.dids)
	}
	return 0
}

// cursorMark begins every directory cursor. It makes sure that each one holds
// the characters + / and = that break a client which does not encode them.
const cursorMark = "\xfb\xff\xfe"

const cursorLen = len(cursorMark) + 8

func packCursor(position int) string {
	b := binary.BigEndian.AppendUint64([]byte(cursorMark), uint64(position))
	return base64.StdEncoding.EncodeToString(b)
}

var errCursor = errors.New("could not decode cursor")

func unpackCursor(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != cursorLen || string(b[:len(cursorMark)]) != cursorMark {
		return 0, errCursor
	}
	n := binary.BigEndian.Uint64(b[len(cursorMark):])
	if n > 1<<40 {
		return 0, errCursor
	}
	return int(n), nil
}
