package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// The key index orders the records of a collection by record key, across all
// repos. Kept in every commit it would cost the writer ten times the rest, since
// record keys of different repos fall everywhere between each other. So it lags:
// it is brought up to date from the change log, a sorted run at a time, from a
// watermark that is saved when the run is in. A run that a crash cuts off is made
// again; doing so twice changes nothing. Readers add what the index lacks yet.

const (
	// maxRun bounds the changes sorted in memory at a time, at about 80 bytes.
	maxRun = 250_000
	// runStep bounds the keys put in one transaction. A run is sorted, so that its
	// steps touch each page of the index once between them; in a large index each key
	// touches a page of its own, which takes about 25 KiB of memory until the commit.
	runStep = 2_000
	// maxTail bounds what a reader adds of the changes not in the index yet.
	// Past that it reads the index as it is.
	maxTail = 2_000
	// tailsKept bounds the collections of which that is remembered.
	tailsKept = 64
)

// indexKey is the key of a record in its collection's key index.
func indexKey(record []byte) []byte {
	k := make([]byte, 0, len(record)+1)
	k = append(k, record[ridLen:]...)
	k = append(k, 0)
	return append(k, record[:ridLen]...)
}

// indexBytes is what the entry of a record with so long a key takes in the key index.
func indexBytes(key int) int64 { return entryBytes(key+1, 0) }

// indexed gives the record's key back, in the memory of buf.
func indexed(buf, k []byte) ([]byte, error) {
	n := len(k) - ridLen - 1
	if n <= 0 || k[n] != 0 {
		return nil, fmt.Errorf("%w: key index %x", errRow, k)
	}
	record := append(buf[:0], k[n+1:]...)
	return append(record, k[:n]...), nil
}

// watermark is the last change that a collection's key index contains.
func watermark(tx *bbolt.Tx, collection []byte) (uint64, error) {
	row := tx.Bucket([]byte(keyIndexAtBucket)).Get(collection)
	if row == nil {
		return 0, nil
	}
	at, ok := kv.NumberOf(collection, row)
	if !ok {
		return 0, fmt.Errorf("%w: watermark of %s is no number: %x", errRow, collection, row[:min(len(row), 16)])
	}
	return at, nil
}

// changedSince lists the keys of records that were put or deleted after the
// given change, up to limit, and the last change that the list contains. whole
// says that there are no more.
func changedSince(tx *bbolt.Tx, collection []byte, since uint64, limit int) (keys [][]byte, last uint64, whole bool, err error) {
	next, err := metaOf(tx, metaNextSeq)
	if err != nil {
		return nil, 0, false, err
	}
	last, whole = next-1, true
	if log := tx.Bucket([]byte(logBucket)).Bucket(collection); log != nil {
		c := log.Cursor()
		for k, key := c.Seek(u64Key(since + 1)); k != nil; k, key = c.Next() {
			if len(keys) == limit {
				last, whole = binary.BigEndian.Uint64(k)-1, false
				break
			}
			keys = append(keys, indexKey(key))
		}
	}
	if deletions := tx.Bucket([]byte(deletionsBucket)).Bucket(collection); deletions != nil {
		c := deletions.Cursor()
		for k, row := c.Seek(u64Key(since + 1)); k != nil && bytes.Compare(k, u64Key(last)) <= 0; k, row = c.Next() {
			if len(keys) == 2*limit {
				last, whole = binary.BigEndian.Uint64(k)-1, false
				break
			}
			if len(row) <= deletionHead+ridLen {
				return nil, 0, false, fmt.Errorf("%w: deletion %x of %s", errRow, k, collection)
			}
			keys = append(keys, indexKey(row[deletionHead:]))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), last, whole, nil
}

// IndexLag is how many changes the key index of a collection is behind at most.
// Changes of all collections count, so that it is quick to tell.
func (s *Store) IndexLag(ctx context.Context, collection syntax.NSID) (lag uint64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		lag, err = indexLag(tx, []byte(collection))
		return err
	})
	return lag, err
}

func indexLag(tx *bbolt.Tx, collection []byte) (uint64, error) {
	at, err := watermark(tx, collection)
	if err != nil {
		return 0, err
	}
	var last uint64
	for _, name := range []string{logBucket, deletionsBucket} {
		if b := tx.Bucket([]byte(name)).Bucket(collection); b != nil {
			if k, _ := b.Cursor().Last(); k != nil {
				last = max(last, binary.BigEndian.Uint64(k))
			}
		}
	}
	if last <= at {
		return 0, nil
	}
	return last - at, nil
}

// IndexKeys brings the key index of a collection a run nearer to its records. It
// returns true when nothing was left to do.
func (s *Store) IndexKeys(ctx context.Context, collection syntax.NSID) (done bool, err error) {
	var (
		keys [][]byte
		last uint64
	)
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		at, err := watermark(tx, []byte(collection))
		if err != nil {
			return err
		}
		keys, last, done, err = changedSince(tx, []byte(collection), at, s.db.Bound(maxRun))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("index keys of %s: %w", collection, err)
	}
	for step := range slices.Chunk(keys, s.db.Bound(runStep)) {
		if err := s.indexStep(ctx, collection, step, 0); err != nil {
			return false, err
		}
	}
	return done, s.indexStep(ctx, collection, nil, last)
}

// indexStep puts what is stored of the keys into the key index, takes out what is
// not, and moves the watermark if the step is the last of its run.
func (s *Store) indexStep(ctx context.Context, collection syntax.NSID, keys [][]byte, last uint64) error {
	return s.wait(ctx, change{op: "index keys of " + collection.String(), urgent: true, apply: func(g *group) error {
		index, err := g.tx.Bucket([]byte(keyIndexBucket)).CreateBucketIfNotExists([]byte(collection))
		if err != nil {
			return err
		}
		index.FillPercent = fillSorted
		records := recordsOf(g.tx, collection)
		var key []byte
		for _, k := range keys {
			if key, err = indexed(key, k); err != nil {
				return err
			}
			if records != nil && records.Get(key) != nil {
				err = index.Put(k, nil)
			} else {
				err = index.Delete(k)
			}
			if err != nil {
				return err
			}
		}
		if last == 0 {
			return nil
		}
		return g.tx.Bucket([]byte(keyIndexAtBucket)).Put([]byte(collection), kv.SealedNumber([]byte(collection), last))
	}})
}

// KeyPlace is a place in the order of record keys across repos.
type KeyPlace struct {
	RKey syntax.RecordKey
	Repo uint32 // tells repos with the same record key apart
}

// ByKey calls each for records of a collection over all active repos, the highest
// record key first, below the given place (nil: from the top). next is where the
// following page starts, nil at the end; a page may be short, or empty, without
// being the last.
func (s *Store) ByKey(ctx context.Context, collection syntax.NSID, below *KeyPlace, limit int, each func(*Record) error) (next *KeyPlace, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		records := recordsOf(tx, collection)
		if records == nil {
			return nil
		}
		tail, err := s.tails.of(tx, collection)
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
				return fmt.Errorf("%w: %x follows %x in the key index of %s", errRow, k, above, collection)
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
					return fmt.Errorf("%w: record %x is in the key index of %s, but not there, and was not deleted", errRow, key, collection)
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

// explains tells whether a key of the index may stand for no record.
func (t tail) explains(k []byte) bool {
	_, changed := slices.BinarySearchFunc(t.keys, k, bytes.Compare)
	return changed || !t.whole
}

// of returns the tail of a collection.
func (t *tails) of(tx *bbolt.Tx, collection syntax.NSID) (tail, error) {
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
	cursor *bbolt.Cursor
	index  []byte   // the cursor's key, nil at the end
	tail   [][]byte // not in the index yet, ascending
}

func newKeyWalk(tx *bbolt.Tx, collection syntax.NSID, tail [][]byte, below *KeyPlace) *keyWalk {
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
			w.index, _ = seekBefore(w.cursor, end)
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
