package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// A repo that is read in steps has its keys marked as they are listed: a record that is
// listed again, in whatever step, counts once, and at the end it is known what was not
// listed, in whatever order the pages came.

// Order is the order of keys in which a listing has come so far. Stored: never rename.
type Order string

// The orders of listings. Only in one by key is it certain that nothing has slipped from
// one page to another.
const (
	OrderUnknown Order = ""     // no two keys were listed yet
	OrderDown    Order = "down" // the highest key first
	OrderUp      Order = "up"   // the lowest key first
	OrderNone    Order = "none"
)

// With returns the order of a listing in which key follows last, the last one before.
func (o Order) With(last, key syntax.RecordKey) Order {
	switch {
	case last == "" || key == last:
		return o
	case key < last && (o == OrderUnknown || o == OrderDown):
		return OrderDown
	case key > last && (o == OrderUnknown || o == OrderUp):
		return OrderUp
	default:
		return OrderNone
	}
}

// unnamedMark begins the mark of an entry without a record key. No record key does.
const unnamedMark = "\x01"

// UnnamedKey stands for a listed entry that names no record, by what it says it is, which
// is not empty: the same entry on another page counts once.
func UnnamedKey(says string) syntax.RecordKey {
	sum := sha256.Sum256([]byte(says))
	return syntax.RecordKey(unnamedMark + string(sum[:]))
}

// maxRecordKey is the longest that a record key may be. UnnamedKey is shorter.
const maxRecordKey = 512

// markBytes is the most that the mark of an entry takes.
const markBytes = leafElement + maxRecordKey + sealLen

// mark marks the keys of a segment, and returns it without what was marked before.
func (w *workBuckets) mark(did syntax.DID, seg Segment) (Segment, error) {
	name := marksKey(did, seg.Collection)
	b, err := w.listed.CreateBucketIfNotExists(name)
	if err != nil {
		return seg, fmt.Errorf("mark what %s lists of %s: %w", did, seg.Collection, err)
	}
	b.FillPercent = fillSorted
	add := func(rkey syntax.RecordKey) (bool, error) {
		if rkey == "" || b.Get([]byte(rkey)) != nil {
			return rkey == "", nil
		}
		return true, b.Put([]byte(rkey), appendSeal(markKey(name, []byte(rkey)), nil))
	}
	return seg.filter(add)
}

// unmarked returns a segment without what earlier steps have listed.
func (w *workBuckets) unmarked(did syntax.DID, seg Segment) (Segment, error) {
	b := w.listed.Bucket(marksKey(did, seg.Collection))
	if b == nil {
		return seg, nil
	}
	return seg.filter(func(rkey syntax.RecordKey) (bool, error) {
		return rkey == "" || b.Get([]byte(rkey)) == nil, nil
	})
}

// filter returns the segment with those of its keys of which is says yes.
func (s Segment) filter(is func(syntax.RecordKey) (bool, error)) (Segment, error) {
	out := Segment{Collection: s.Collection}
	for _, l := range s.Records {
		ok, err := is(l.RKey)
		if err != nil {
			return out, err
		}
		if ok {
			out.Records = append(out.Records, l)
		}
	}
	for _, rkey := range s.Rejected {
		ok, err := is(rkey)
		if err != nil {
			return out, err
		}
		if ok {
			out.Rejected = append(out.Rejected, rkey)
		}
	}
	return out, nil
}

// keys are those that the segment names.
func (s Segment) keys() map[syntax.RecordKey]struct{} {
	set := make(map[syntax.RecordKey]struct{}, len(s.Records)+len(s.Rejected))
	for _, l := range s.Records {
		set[l.RKey] = struct{}{}
	}
	for _, rkey := range s.Rejected {
		set[rkey] = struct{}{}
	}
	return set
}

// markKey is what the seal of a mark covers.
func markKey(bucket, rkey []byte) []byte {
	return append(append(bytes.Clone(bucket), 0), rkey...)
}

// marks walks the marks of a collection in key order. A nil cursor has none.
type marks struct {
	name []byte
	cur  *bbolt.Cursor
	key  []byte // nil at the end
}

// marksFrom walks the marks from a key on.
func (w *workBuckets) marksFrom(did syntax.DID, c syntax.NSID, from syntax.RecordKey) (*marks, error) {
	m := &marks{name: marksKey(did, c)}
	b := w.listed.Bucket(m.name)
	if b == nil {
		return m, nil
	}
	m.cur = b.Cursor()
	return m, m.check(m.cur.Seek([]byte(from)))
}

// check takes the next mark. One that has changed would have a listed record deleted.
func (m *marks) check(key, row []byte) error {
	if m.key = key; key == nil {
		return nil
	}
	if rest, ok := unsealed(markKey(m.name, key), row); !ok || len(rest) > 0 {
		return fmt.Errorf("%w: the mark of listed record %q in %q is %.32x", errRow, key, m.name, row)
	}
	return nil
}

// at reports whether rkey is marked. It is called with ever higher keys.
func (m *marks) at(rkey []byte) (bool, error) {
	for m.key != nil && bytes.Compare(m.key, rkey) < 0 {
		if err := m.check(m.cur.Next()); err != nil {
			return false, err
		}
	}
	return m.key != nil && bytes.Equal(m.key, rkey), nil
}

// rest proves the marks that are left.
func (m *marks) rest() error {
	for m.key != nil {
		if err := m.check(m.cur.Next()); err != nil {
			return err
		}
	}
	return nil
}

// absence finds the records of a repo's collection that were not listed.
type absence struct {
	w       *workBuckets
	records *bbolt.Bucket // nil: none of anybody's
	id      rid           // 0: none of the repo's
	did     syntax.DID
	c       syntax.NSID
	named   map[syntax.RecordKey]struct{} // listed since the last step
}

func (w *workBuckets) absenceIn(tx *bbolt.Tx, did syntax.DID, seg Segment) (absence, error) {
	id, _, err := ridOf(tx, did)
	a := absence{w: w, records: recordsOf(tx, seg.Collection), id: id, did: did, c: seg.Collection}
	if a.records != nil && id != 0 {
		a.named = seg.keys()
	}
	return a, err
}

// page returns up to limit keys that are held and were not listed, from a key on.
func (a absence) page(from syntax.RecordKey, limit int) (keys []syntax.RecordKey, err error) {
	if a.records == nil || a.id == 0 {
		return nil, nil
	}
	prefix, cur := ridKey(a.id), a.records.Cursor()
	k, _ := cur.Seek(recordKey(a.id, from))
	if !bytes.HasPrefix(k, prefix) {
		return nil, nil
	}
	marks, err := a.w.marksFrom(a.did, a.c, from)
	if err != nil {
		return nil, err
	}
	for ; bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		_, rkey, ok := splitRecordKey(k)
		if !ok {
			return nil, fmt.Errorf("%w: record key %x of %s", errRow, k, a.c)
		}
		if _, ok := a.named[rkey]; ok {
			continue
		}
		marked, err := marks.at([]byte(rkey))
		switch {
		case err != nil:
			return nil, err
		case marked:
		case len(keys) == limit:
			return keys, nil
		default:
			keys = append(keys, rkey)
		}
	}
	return keys, marks.rest()
}

// Unlisted returns up to limit keys of records that the index holds of a repo's
// collection and that were not listed: not by earlier steps of the job, and not by seg.
func (s *Store) Unlisted(ctx context.Context, seq uint64, did syntax.DID, seg Segment, limit int) (keys []syntax.RecordKey, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err != nil {
			return err
		}
		a, err := w.absenceIn(tx, did, seg)
		if err == nil {
			keys, err = a.page("", limit)
		}
		return err
	})
	return keys, err
}

// removalPage is how many keys are in memory at a time while what was not listed is
// deleted.
const removalPage = 1_000

// deleteAbsent deletes what the listing of a collection has shown to be absent, as of
// the rev before its first page: whatever a complete one has not named, or only what was
// confirmed. It reports whether the index keeps something that was not listed. What
// another job has seen since, in a complete reading, is kept.
func (r *repoRow) deleteAbsent(w *workBuckets, c syntax.NSID, t Settlement, tally *Tally) (guarded bool, err error) {
	if r.rid == 0 {
		return false, nil
	}
	a, err := w.absenceIn(r.g.tx, t.DID, t.Reading.Segment(c))
	if err != nil {
		return false, err
	}
	confirmed, some := t.Confirmed[c]
	only := Segment{Rejected: confirmed}.keys()
	for from, more := syntax.RecordKey(""), true; more; {
		keys, err := a.page(from, removalPage)
		if err != nil {
			return guarded, err
		}
		if more = len(keys) == removalPage; more {
			from = keys[len(keys)-1] + "\x00"
		}
		for _, k := range keys {
			if _, ok := only[k]; t.Floor < r.repo.Collections[c].Floor || some && !ok {
				guarded = true
				continue
			}
			what, err := r.remove(c, k, t.Floor)
			if err != nil {
				return guarded, err
			}
			tally.note(what)
			guarded = guarded || what == kept
		}
	}
	return guarded, nil
}

// forget drops the marks of a repo that was read in steps.
func (w *workBuckets) forget(did syntax.DID) error {
	var names [][]byte
	prefix, cur := marksPrefix(did), w.listed.Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		names = append(names, bytes.Clone(k))
	}
	for _, name := range names {
		if err := w.listed.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// dropMarks deletes up to left marks of a job, and buckets that are empty then.
func dropMarks(listed *bbolt.Bucket, left *int) error {
	if listed == nil {
		return fmt.Errorf("%w: there is no %s", errRow, listedBucket)
	}
	for *left > 0 {
		name, _ := listed.Cursor().First()
		if name == nil {
			return nil
		}
		name = bytes.Clone(name)
		b := listed.Bucket(name)
		if b == nil {
			return fmt.Errorf("%w: %q in %s is no bucket", errRow, name, listedBucket)
		}
		if err := kv.DeleteFirst(b, left, func(_, _ []byte) bool { return true }); err != nil {
			return err
		}
		if *left > 0 {
			*left--
			if err := listed.DeleteBucket(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMarks proves every mark of the job.
func (w *workBuckets) checkMarks() error {
	return w.listed.ForEach(func(name, row []byte) error {
		did, c, ok := bytes.Cut(name, []byte{0})
		if row != nil || !ok {
			return fmt.Errorf("%w: %q in %s is no bucket of a repo's collection", errRow, name, listedBucket)
		}
		m, err := w.marksFrom(syntax.DID(did), syntax.NSID(c), "")
		if err == nil {
			err = m.rest()
		}
		return err
	})
}
