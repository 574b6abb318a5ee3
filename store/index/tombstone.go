package index

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// A tombstone says at which rev a stream has deleted a record: a reading of the repo at an
// older rev, which has still listed it, must not bring it back. One is written for every
// deletion that an event tells of, also of a record that is not held, since a page under way
// may hold it. It stands in the bucket tombstones, under the record's key, beside a row in
// deletions, with which it is forgotten.
//
// It is deleted when it says nothing more: when a complete reading has come to its rev, when
// the record is there again, and with its row in deletions. Nothing that an administrator
// deletes leaves one.

const tombstonesBucket = "tombstones"

// maxTombstones is how many a repo may have in one collection. A complete reading goes over
// all of them in one transaction.
const maxTombstones = 20_000

// tombstone is the row of one.
type tombstone struct {
	rev uint64 // of the commit that deleted the record
	seq uint64 // of the deletion
}

// tombstoneLen is the length of a row.
const tombstoneLen = 8 + kv.NumberLen + kv.SealLen

// tombstoneBytes is what a tombstone takes of a record with so long a key, with its row in
// deletions.
func tombstoneBytes(key int) int64 { return entryBytes(key, tombstoneLen) }

func (t tombstone) encode(key []byte) []byte {
	row := make([]byte, 0, tombstoneLen)
	row = binary.BigEndian.AppendUint64(row, t.rev)
	row = binary.BigEndian.AppendUint64(row, t.seq)
	return kv.Seal(key, row)
}

func parseTombstone(key, row []byte) (t tombstone, err error) {
	body, fits := kv.Unseal(key, row)
	if !fits || len(row) != tombstoneLen {
		return t, fmt.Errorf("%w: a tombstone of %d bytes that its checksum does not fit", kv.ErrRow, len(row))
	}
	return tombstone{rev: binary.BigEndian.Uint64(body), seq: binary.BigEndian.Uint64(body[8:])}, nil
}

// tombstonesOf is the bucket of a collection's tombstones, nil if it has none.
func tombstonesOf(tx *kv.Tx, collection []byte) *kv.Bucket {
	return tx.Bucket([]byte(tombstonesBucket)).Bucket(collection)
}

// tombstone is that of a record, if it has one.
func (b *collectionBuckets) tombstone(key []byte) (t tombstone, ok bool, err error) {
	if b.tombstones == nil {
		return t, false, nil
	}
	row := b.tombstones.Get(key)
	if row == nil {
		return t, false, nil
	}
	t, err = parseTombstone(key, row)
	return t, err == nil, err
}

// putTombstone notes that a record was deleted at rev, by the deletion with seq.
func (r *repoRow) putTombstone(b *collectionBuckets, c syntax.NSID, key []byte, t tombstone) (err error) {
	if b.tombstones == nil {
		b.tombstones, err = r.g.tx.Bucket([]byte(tombstonesBucket)).CreateBucketIfNotExists([]byte(c))
		if err != nil {
			return fmt.Errorf("create bucket %s/%s: %w", tombstonesBucket, c, err)
		}
		b.tombstones.FillPercent = kv.FillSpread
	}
	if b.tombstones.Get(key) == nil {
		r.countTombstone(c, key, 1)
	}
	return b.tombstones.Put(key, t.encode(key))
}

// dropTombstone deletes the tombstone of a record that is there again.
func (r *repoRow) dropTombstone(b *collectionBuckets, c syntax.NSID, key []byte) error {
	if b.tombstones == nil || b.tombstones.Get(key) == nil {
		return nil
	}
	r.countTombstone(c, key, -1)
	return b.tombstones.Delete(key)
}

// countTombstone notes that there is one more, or one less.
func (r *repoRow) countTombstone(c syntax.NSID, key []byte, n int64) {
	h := r.repo.Collections[c]
	h.Tombstones += n
	r.repo.Collections[c] = h
	r.repo.Bytes += n * tombstoneBytes(len(key))
}

// dropTombstones deletes those tombstones of a collection that say nothing more than its
// floor does. What one transaction does not take is left to the next complete reading: it is
// harmless.
func (r *repoRow) dropTombstones(c syntax.NSID, floor syntax.TID) error {
	b, err := r.g.collection(c, false)
	if err != nil || b == nil || b.tombstones == nil {
		return err
	}
	var old [][]byte
	prefix, cur, most := ridKey(r.rid), b.tombstones.Cursor(), r.g.tx.Bound(maxRemovals)
	for k, row := cur.Seek(prefix); bytes.HasPrefix(k, prefix) && len(old) < most; k, row = cur.Next() {
		t, err := parseTombstone(k, row)
		if err != nil {
			return fmt.Errorf("tombstone %x of %s: %w", k, c, err)
		}
		if t.rev <= floor.Integer() {
			old = append(old, bytes.Clone(k))
		}
	}
	for _, k := range old {
		if err := r.dropTombstone(b, c, k); err != nil {
			return err
		}
	}
	return nil
}

// forgetDeletion notes that a row of deletions was deleted, and deletes the tombstone that
// stands beside it.
func (r *repoRow) forgetDeletion(c syntax.NSID, d oldDeletion) error {
	r.repo.Bytes -= d.bytes
	b, err := r.g.collection(c, false)
	if err != nil || b == nil {
		return err
	}
	if t, dead, err := b.tombstone(d.key); err != nil || !dead || t.seq != d.seq {
		return err
	}
	return r.dropTombstone(b, c, d.key)
}
