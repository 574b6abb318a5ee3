package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// KeyPlace is a place in the order of record keys across repos.
type KeyPlace struct {
	RKey syntax.RecordKey
	Repo uint32 // tells repos with the same record key apart
}

// ByKey calls each for records of a collection over all active repos, the highest
// record key first, below the given place (nil: from the top). next is where the
// following page starts, nil at the end; a page may be short, or empty, without
// being the last.
func (x *Index) ByKey(ctx context.Context, collection syntax.NSID, below *KeyPlace, limit int, each func(*Record) error) (next *KeyPlace, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		records := recordsOf(tx, collection)
		if records == nil {
			return nil
		}
		tail, err := x.tails.of(tx, collection)
		if err != nil {
			return err
		}
		w := newKeyWalk(tx, collection, tail.keys, below)
		to := newPasser(each)
		owners, rows := newOwners(tx), records.Cursor()
		var key, above []byte
		for scanned := 0; ; scanned++ {
			k := w.peek()
			switch {
			case k == nil:
				return nil
			case above != nil && bytes.Compare(k, above) >= 0: // the record of another entry
				return fmt.Errorf("%w: %x follows %x in the key index of %s", kv.ErrRow, k, above, collection)
			}
			above = k
			if to.full(limit) || scanned == newestScan {
				if next = below; scanned > 0 {
					next = &KeyPlace{RKey: syntax.RecordKey(key[ridLen:]), Repo: binary.BigEndian.Uint32(key)}
				}
				return nil
			}
			if key, err = indexed(key, k); err != nil {
				return err
			}
			w.next(k)
			at, raw := rows.Seek(key)
			if !bytes.Equal(at, key) {
				if !tail.explains(k) {
					return fmt.Errorf("%w: record %x is in the key index of %s, but not there, and was not deleted", kv.ErrRow, key, collection)
				}
				continue // deleted since it was indexed
			}
			owner, err := owners.of(key)
			if err != nil {
				return err
			}
			if !owner.active {
				continue
			}
			if err := to.pass(owner.did, collection, key, raw); err != nil {
				return err
			}
		}
	})
	return next, err
}

// tails remembers what the key indexes lack at one state of the file, for all the
// readers there are until the next commit.
type tails struct {
	mu      sync.Mutex
	version int // of the file
	kept    map[syntax.NSID]tail
}

// tail is what the key index of a collection lacks. It is shared: not to be changed.
type tail struct {
	keys  [][]byte // ascending; none if these are more than a reader adds
	whole bool     // keys are all that were changed, or deleted, since the index was made
}

// explains reports whether a key of the index may stand for no record.
func (t tail) explains(k []byte) bool {
	_, changed := slices.BinarySearchFunc(t.keys, k, bytes.Compare)
	return changed || !t.whole
}

// of returns the tail of a collection.
func (t *tails) of(tx *kv.Tx, collection syntax.NSID) (tail, error) {
	t.mu.Lock()
	if had, ok := t.kept[collection]; ok && t.version == tx.ID() {
		t.mu.Unlock()
		return had, nil
	}
	t.mu.Unlock()
	at, err := watermark(tx, []byte(collection))
	if err != nil {
		return tail{}, err
	}
	keys, _, whole, err := changedSince(tx, []byte(collection), at, maxTail)
	if err != nil {
		return tail{}, err
	}
	if !whole && at != 0 {
		keys = nil // the index as it is shows more
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.version < tx.ID() || len(t.kept) == tailsKept || t.kept == nil {
		t.version, t.kept = tx.ID(), map[syntax.NSID]tail{}
	}
	found := tail{keys: keys, whole: whole}
	if t.version == tx.ID() {
		t.kept[collection] = found
	}
	return found, nil
}

// keyWalk goes down the key index and the changes that it lacks, merged.
type keyWalk struct {
	cursor *kv.Cursor
	index  []byte   // the cursor's key, nil at the end
	tail   [][]byte // not in the index yet, ascending
}

func newKeyWalk(tx *kv.Tx, collection syntax.NSID, tail [][]byte, below *KeyPlace) *keyWalk {
	w := &keyWalk{tail: tail}
	var end []byte
	if below != nil {
		end = indexKey(recordKey(rid(below.Repo), below.RKey))
		n, _ := slices.BinarySearchFunc(w.tail, end, bytes.Compare)
		w.tail = w.tail[:n]
	}
	if index := tx.Bucket([]byte(keyIndexBucket)).Bucket([]byte(collection)); index != nil {
		w.cursor = index.Cursor()
		if end == nil {
			w.index, _ = w.cursor.Last()
		} else {
			w.index, _ = kv.SeekBefore(w.cursor, end)
		}
	}
	return w
}

// peek is the highest key not yet passed, nil at the end.
func (w *keyWalk) peek() []byte {
	if n := len(w.tail); n > 0 && (w.index == nil || bytes.Compare(w.tail[n-1], w.index) >= 0) {
		return w.tail[n-1]
	}
	return w.index
}

// next passes k, the highest key.
func (w *keyWalk) next(k []byte) {
	n := len(w.tail)
	inTail := n > 0 && bytes.Equal(w.tail[n-1], k)
	if w.index != nil && bytes.Equal(w.index, k) {
		w.index, _ = w.cursor.Prev()
	}
	if inTail {
		w.tail = w.tail[:n-1]
	}
}
