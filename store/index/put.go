package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/record"
	"appview/store/kv"
)

// collectionBuckets are the buckets of one collection, made when the first
// record is put.
type collectionBuckets struct {
	records, log, deletions *kv.Bucket
	tombstones              *kv.Bucket // nil while there are none
}

// collection returns the buckets of a collection, making them if asked to.
// Otherwise they are nil where there are none.
func (g *group) collection(c syntax.NSID, create bool) (*collectionBuckets, error) {
	if b := g.collections[c]; b != nil {
		return b, nil
	}
	if !create && recordsOf(g.tx, c) == nil {
		return nil, nil //nolint:nilnil // nothing was ever stored there
	}
	b := &collectionBuckets{}
	for _, x := range []struct {
		name string
		to   **kv.Bucket
	}{{recordsBucket, &b.records}, {logBucket, &b.log}, {deletionsBucket, &b.deletions}} {
		bucket, err := g.tx.Bucket([]byte(x.name)).CreateBucketIfNotExists([]byte(c))
		if err != nil {
			return nil, fmt.Errorf("create bucket %s/%s: %w", x.name, c, err)
		}
		bucket.FillPercent = kv.FillAppend
		*x.to = bucket
	}
	b.tombstones = tombstonesOf(g.tx, []byte(c))
	g.collections[c] = b
	return b, nil
}

// outcome of a put.
type outcome int

const (
	unchanged outcome = iota
	created
	updated
	guarded // the index holds something newer
)

// placement is what putting a listed record comes to.
type placement struct {
	result outcome
	key    []byte
	oldLen int    // length of the row that is replaced
	oldSeq uint64 // of that row
	body   record.Body
	src    Source
}

// place tells what putting a record that the repo held at rev comes to, without writing
// anything. An unchanged record is not written, and one that is proved not in favour of a
// claim. Nothing is written over a record known at a later rev, or known to have been deleted
// at one. b is nil where nothing was ever stored.
func (r *repoRow) place(b *collectionBuckets, c syntax.NSID, l Listed, rev syntax.TID, src Source) (placement, error) {
	if l.Source != 0 {
		src = l.Source
	}
	p := placement{result: created, key: recordKey(r.rid, l.RKey), body: l.Body, src: src}
	if b == nil || r.rid == 0 {
		return p, nil
	}
	old := b.records.Get(p.key)
	if old == nil {
		stone, dead, err := b.tombstone(p.key)
		if dead && stone.rev > rev.Integer() {
			p.result = guarded
		}
		return p, err
	}
	row, err := parseRecordRow(p.key, old)
	if err != nil {
		return p, fmt.Errorf("record %s/%s/%s: %w", r.repo.DID, c, l.RKey, err)
	}
	p.result, p.oldLen, p.oldSeq = updated, len(old), row.seq()
	switch {
	case row.rev() > rev.Integer():
		p.result = guarded
	case bytes.Equal(row.cid(), l.Body.CID.Bytes()) && row.proof() >= proofOf(l.Body.Verified, src):
		covered, err := r.g.coveredByPendingDelete(r.repo.DID, c, row.seq())
		if err != nil {
			return p, err
		}
		if !covered {
			p.result = unchanged
			return p, nil
		}
		p.body, p.src = row.body(l.Body.CID), row.source()
	}
	return p, nil
}

// put brings one record to what the repo held at rev.
func (r *repoRow) put(c syntax.NSID, l Listed, rev syntax.TID, src Source) (outcome, error) {
	b, err := r.g.collection(c, true)
	if err != nil {
		return 0, err
	}
	if err := r.number(); err != nil {
		return 0, err
	}
	p, err := r.place(b, c, l, rev, src)
	if err != nil || p.result == unchanged || p.result == guarded {
		return p.result, err
	}
	return p.result, r.write(b, c, l.RKey, rev, p)
}

// write writes a record that is placed: one that is created or updated.
func (r *repoRow) write(b *collectionBuckets, c syntax.NSID, rkey syntax.RecordKey, rev syntax.TID, p placement) error {
	if p.result == updated {
		if err := b.log.Delete(kv.NumberKey(p.oldSeq)); err != nil {
			return err
		}
	}
	seq := r.g.seq()
	row := newRecordRow(p.key, rev, r.g.tx.Now, seq, p.src, p.body)
	if err := b.records.Put(p.key, row); err != nil {
		return fmt.Errorf("put %s/%s/%s: %w", r.repo.DID, c, rkey, err)
	}
	if err := b.log.Put(kv.NumberKey(seq), p.key); err != nil {
		return fmt.Errorf("log %s/%s/%s: %w", r.repo.DID, c, rkey, err)
	}
	if p.result == created {
		if err := r.dropTombstone(b, c, p.key); err != nil {
			return err
		}
		r.changed(c, 1, recordBytes(len(p.key), len(row)))
	} else {
		r.changed(c, 0, int64(len(row)-p.oldLen))
	}
	return nil
}

// logBytes is what the log entry of a record with so long a key takes.
func logBytes(key int) int64 { return entryBytes(kv.NumberLen, key) }

// changed notes that records of a collection were written or deleted, how many more there
// are, and how many bytes more the account takes.
func (r *repoRow) changed(c syntax.NSID, records, bytes int64) {
	h, had := r.repo.Collections[c]
	if !had {
		bytes += collectionBytes(c)
	}
	h.Count, h.Exact = h.Count+records, ExactUnknown
	r.repo.Collections[c] = h
	r.repo.Bytes += bytes
}

// proof is what is known of a body beside the CID that its host claims for it.
type proof int

const (
	claimedOnly proof = iota // nothing
	blockHashed              // it is the JSON of a block that had this CID
	bytesHashed              // it is that block
)

// proofOf is what is known of a body that came by src.
func proofOf(verified bool, src Source) proof {
	switch {
	case verified:
		return bytesHashed
	case src.hashed():
		return blockHashed
	default:
		return claimedOnly
	}
}

func (r recordRow) proof() proof { return proofOf(r.verified(), r.source()) }

// body is a copy of the row's body.
func (r recordRow) body(id cid.Cid) record.Body {
	return record.Body{CID: id, Verified: r.verified(), Plain: r.plain(), Data: bytes.Clone(r.data())}
}

// maxRemovals bounds the records of a repo that are deleted in one transaction.
// What is more goes in the next ones.
const maxRemovals = 5_000

// removal is what became of a record that is to be deleted.
type removal int

const (
	wasAbsent removal = iota
	removed
	kept // it is known at a later rev
)

// note counts a record that was to be deleted.
func (a *Applied) note(what removal) {
	switch what {
	case removed:
		a.Tally.Deleted++
	case kept:
		a.Guarded = true
	case wasAbsent:
	}
}

// remove deletes a stored record as of rev, and notes the deletion. It fails with
// kv.ErrAgain, before it has done anything, when the transaction has deleted enough.
func (r *repoRow) remove(c syntax.NSID, rkey syntax.RecordKey, rev syntax.TID) (removal, error) {
	b, err := r.g.collection(c, false)
	if err != nil || b == nil || r.rid == 0 {
		return wasAbsent, err
	}
	key := recordKey(r.rid, rkey)
	old := b.records.Get(key)
	if old == nil {
		return wasAbsent, nil
	}
	row, err := parseRecordRow(key, old)
	if err != nil {
		return wasAbsent, fmt.Errorf("record %s/%s/%s: %w", r.repo.DID, c, rkey, err)
	}
	if row.rev() > rev.Integer() {
		return kept, nil
	}
	if r.removals == r.g.tx.Bound(maxRemovals) {
		return wasAbsent, kv.ErrAgain
	}
	r.removals++
	_, err = r.deleteRow(b, c, key, rev)
	return removed, err
}

// deleteRow deletes a record that is held, or that may be on a page which is being read, and
// notes its deletion as of rev. It returns the deletion's place in the order of changes.
func (r *repoRow) deleteRow(b *collectionBuckets, c syntax.NSID, key []byte, rev syntax.TID) (seq uint64, err error) {
	records, takes := int64(0), int64(0)
	if old := b.records.Get(key); old != nil {
		row, err := parseRecordRow(key, old)
		if err != nil {
			return 0, err
		}
		records, takes = 1, recordBytes(len(key), len(old))
		if err := errors.Join(b.log.Delete(kv.NumberKey(row.seq())), b.records.Delete(key)); err != nil {
			return 0, err
		}
	}
	note := appendDeletion(nil, r.g.tx.Steady, rev, key)
	seq = r.g.seq()
	if err := b.deletions.Put(kv.NumberKey(seq), note); err != nil {
		return 0, err
	}
	r.changed(c, -records, deletionBytes(len(note))-takes)
	return seq, nil
}

// appendDeletion encodes a row of the deletions bucket.
func appendDeletion(row []byte, at time.Time, rev syntax.TID, key []byte) []byte {
	row = binary.BigEndian.AppendUint64(row, uint64(at.Unix()))
	row = binary.BigEndian.AppendUint64(row, rev.Integer())
	return append(row, key...)
}

// deletionHead is the length of a deletions row before the record's key.
const deletionHead = 16

// deletionBytes is what the note of a deletion takes whose row is so long.
func deletionBytes(row int) int64 { return entryBytes(kv.NumberLen, row) }

// stored lists the keys of the repo's records in c.
func (r *repoRow) stored(c syntax.NSID) ([]syntax.RecordKey, error) {
	b, err := r.g.collection(c, false)
	if err != nil || b == nil || r.rid == 0 {
		return nil, err
	}
	var keys []syntax.RecordKey
	prefix, cur := ridKey(r.rid), b.records.Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		_, rkey, ok := splitRecordKey(k)
		if !ok {
			return nil, fmt.Errorf("%w: record key %x of %s", kv.ErrRow, k, c)
		}
		keys = append(keys, rkey)
	}
	return keys, nil
}

// purge deletes everything that is held of the repo.
func (r *repoRow) purge(a *Applied) error {
	for _, c := range r.repo.RepoCollections() {
		keys, err := r.stored(c)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if _, err := r.remove(c, k, LastRev); err != nil {
				return err
			}
			a.Tally.Deleted++
		}
	}
	return nil
}

// LastRev is above every rev that a repo can have.
const LastRev = syntax.TID("jzzzzzzzzzzzz")
