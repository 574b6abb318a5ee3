package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

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
		return nil, fmt.Errorf("%w: key index %x", kv.ErrRow, k)
	}
	record := append(buf[:0], k[n+1:]...)
	return append(record, k[:n]...), nil
}

// watermark is the last change that a collection's key index contains.
func watermark(tx *kv.Tx, collection []byte) (uint64, error) {
	row := tx.Bucket([]byte(keyIndexAtBucket)).Get(collection)
	if row == nil {
		return 0, nil
	}
	at, ok := kv.NumberOf(collection, row)
	if !ok {
		return 0, fmt.Errorf("%w: watermark of %s is no number: %x", kv.ErrRow, collection, row[:min(len(row), 16)])
	}
	return at, nil
}

// changedSince lists the keys of records that were put or deleted after the
// given change, up to limit, and the last change that the list contains. whole
// says that there are no more.
func changedSince(tx *kv.Tx, collection []byte, since uint64, limit int) (keys [][]byte, last uint64, whole bool, err error) {
	next, err := tx.Meta(metaNextSeq)
	if err != nil {
		return nil, 0, false, err
	}
	last, whole = next-1, true
	if log := tx.Bucket([]byte(logBucket)).Bucket(collection); log != nil {
		c := log.Cursor()
		for k, key := c.Seek(kv.NumberKey(since + 1)); k != nil; k, key = c.Next() {
			if len(keys) == limit {
				last, whole = binary.BigEndian.Uint64(k)-1, false
				break
			}
			keys = append(keys, indexKey(key))
		}
	}
	if deletions := tx.Bucket([]byte(deletionsBucket)).Bucket(collection); deletions != nil {
		c := deletions.Cursor()
		for k, row := c.Seek(kv.NumberKey(since + 1)); k != nil && bytes.Compare(k, kv.NumberKey(last)) <= 0; k, row = c.Next() {
			if len(keys) == 2*limit {
				last, whole = binary.BigEndian.Uint64(k)-1, false
				break
			}
			if len(row) <= deletionHead+ridLen {
				return nil, 0, false, fmt.Errorf("%w: deletion %x of %s", kv.ErrRow, k, collection)
			}
			keys = append(keys, indexKey(row[deletionHead:]))
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), last, whole, nil
}

// IndexLag is how many changes the key index of a collection is behind at most.
// Changes of all collections count, so that it is quick to tell.
func (x *Index) IndexLag(ctx context.Context, collection syntax.NSID) (uint64, error) {
	return kv.Read(ctx, x.db, func(tx *kv.Tx) (uint64, error) { return indexLag(tx, []byte(collection)) })
}

func indexLag(tx *kv.Tx, collection []byte) (uint64, error) {
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
func (x *Index) IndexKeys(ctx context.Context, collection syntax.NSID) (done bool, err error) {
	run, err := kv.Read(ctx, x.db, func(tx *kv.Tx) (r indexRun, err error) {
		at, err := watermark(tx, []byte(collection))
		if err != nil {
			return r, err
		}
		r.keys, r.last, r.whole, err = changedSince(tx, []byte(collection), at, x.db.Bound(maxRun))
		return r, err
	})
	if err != nil {
		return false, fmt.Errorf("index keys of %s: %w", collection, err)
	}
	for step := range slices.Chunk(run.keys, x.db.Bound(runStep)) {
		if err := x.indexStep(ctx, collection, step, 0); err != nil {
			return false, err
		}
	}
	return run.whole, x.indexStep(ctx, collection, nil, run.last)
}

// indexRun is a sorted run of changed keys.
type indexRun struct {
	keys  [][]byte
	last  uint64 // change that it contains
	whole bool   // there are no more
}

// indexStep puts what is stored of the keys into the key index, takes out what is
// not, and moves the watermark if the step is the last of its run.
func (x *Index) indexStep(ctx context.Context, collection syntax.NSID, keys [][]byte, last uint64) error {
	return x.db.Do(ctx, kv.Change{Op: "index keys of " + collection.String(), Urgent: true, Apply: func(tx *kv.Tx) error {
		index, err := tx.Bucket([]byte(keyIndexBucket)).CreateBucketIfNotExists([]byte(collection))
		if err != nil {
			return err
		}
		index.FillPercent = kv.FillSorted
		records := recordsOf(tx, collection)
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
		return tx.Bucket([]byte(keyIndexAtBucket)).Put([]byte(collection), kv.SealedNumber([]byte(collection), last))
	}})
}

// IndexAll brings the key index of every collection a run nearer to its records.
func (x *Index) IndexAll(ctx context.Context) error {
	behind, err := kv.Read(ctx, x.db, func(tx *kv.Tx) (behind []syntax.NSID, err error) {
		for _, name := range collectionNames(tx) {
			lag, err := indexLag(tx, []byte(name))
			if err != nil {
				return nil, err
			}
			if lag > 0 {
				behind = append(behind, syntax.NSID(name))
			}
		}
		return behind, nil
	})
	if err != nil {
		return err
	}
	for _, c := range behind {
		if _, err := x.IndexKeys(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// MaxLag is how many changes the key index of a collection is behind, at most.
func (x *Index) MaxLag(ctx context.Context) (uint64, error) {
	return kv.Read(ctx, x.db, func(tx *kv.Tx) (most uint64, err error) {
		for _, name := range collectionNames(tx) {
			lag, err := indexLag(tx, []byte(name))
			if err != nil {
				return 0, err
			}
			most = max(most, lag)
		}
		return most, nil
	})
}
