package index

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// A repo that is read in steps has its keys marked as they are listed: a record that is
// listed again, in whatever step, counts once, and at the end it is known what was not
// listed, in whatever order the pages came.

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
const markBytes = leafElement + maxRecordKey + kv.SealLen

// Marks are the keys that the readings of repos in steps have listed, in a bucket of whoever
// has them read. The zero value has none.
type Marks struct{ b *kv.Bucket }

// MarksIn are the marks in a bucket.
func MarksIn(b *kv.Bucket) Marks { return Marks{b} }

// mark marks the keys of a segment, and returns it without what was marked before.
func (m Marks) mark(did syntax.DID, seg Segment) (Segment, error) {
	name := marksKey(did, seg.Collection)
	b, err := m.b.CreateBucketIfNotExists(name)
	if err != nil {
		return seg, fmt.Errorf("mark what %s lists of %s: %w", did, seg.Collection, err)
	}
	b.FillPercent = kv.FillSorted
	add := func(rkey syntax.RecordKey) (bool, error) {
		if rkey == "" || b.Get([]byte(rkey)) != nil {
			return rkey == "", nil
		}
		return true, b.Put([]byte(rkey), kv.Seal(markKey(name, []byte(rkey)), nil))
	}
	return seg.filter(add)
}

// unmarked returns a segment without what earlier steps have listed.
func (m Marks) unmarked(did syntax.DID, seg Segment) (Segment, error) {
	b := m.of(marksKey(did, seg.Collection))
	if b == nil {
		return seg, nil
	}
	return seg.filter(func(rkey syntax.RecordKey) (bool, error) {
		return rkey == "" || b.Get([]byte(rkey)) == nil, nil
	})
}

// markKey is what the seal of a mark covers.
func markKey(bucket, rkey []byte) []byte {
	return append(append(bytes.Clone(bucket), 0), rkey...)
}

// of is the bucket of the marks of a repo's collection, nil if there are none.
func (m Marks) of(name []byte) *kv.Bucket {
	if m.b == nil {
		return nil
	}
	return m.b.Bucket(name)
}

// markWalk walks the marks of a collection in key order. A nil cursor has none.
type markWalk struct {
	name []byte
	cur  *kv.Cursor
	key  []byte // nil at the end
}

// from walks the marks of a repo's collection from a key on.
func (m Marks) from(did syntax.DID, c syntax.NSID, key syntax.RecordKey) (*markWalk, error) {
	w := &markWalk{name: marksKey(did, c)}
	b := m.of(w.name)
	if b == nil {
		return w, nil
	}
	w.cur = b.Cursor()
	return w, w.check(w.cur.Seek([]byte(key)))
}

// check takes the next mark. One that has changed would have a listed record deleted.
func (w *markWalk) check(key, row []byte) error {
	if w.key = key; key == nil {
		return nil
	}
	if rest, ok := kv.Unseal(markKey(w.name, key), row); !ok || len(rest) > 0 {
		return fmt.Errorf("%w: the mark of listed record %q in %q is %.32x", kv.ErrRow, key, w.name, row)
	}
	return nil
}

// at reports whether rkey is marked. It is called with ever higher keys.
func (w *markWalk) at(rkey []byte) (bool, error) {
	for w.key != nil && bytes.Compare(w.key, rkey) < 0 {
		if err := w.check(w.cur.Next()); err != nil {
			return false, err
		}
	}
	return w.key != nil && bytes.Equal(w.key, rkey), nil
}

// rest proves the marks that are left.
func (w *markWalk) rest() error {
	for w.key != nil {
		if err := w.check(w.cur.Next()); err != nil {
			return err
		}
	}
	return nil
}

// Forget drops the marks of a repo that was read in steps.
func (m Marks) Forget(did syntax.DID) error {
	var names [][]byte
	prefix, cur := marksPrefix(did), m.b.Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		names = append(names, bytes.Clone(k))
	}
	for _, name := range names {
		if err := m.b.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// Drop deletes up to left marks of all repos, and buckets that are empty then.
func (m Marks) Drop(left *int) error {
	for *left > 0 {
		name, _ := m.b.Cursor().First()
		if name == nil {
			return nil
		}
		name = bytes.Clone(name)
		b := m.b.Bucket(name)
		if b == nil {
			return fmt.Errorf("%w: %q among the marks is no bucket", kv.ErrRow, name)
		}
		if err := kv.DeleteFirst(b, left, func(_, _ []byte) bool { return true }); err != nil {
			return err
		}
		if *left > 0 {
			*left--
			if err := m.b.DeleteBucket(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Check proves every mark.
func (m Marks) Check() error {
	return m.b.ForEach(func(name, row []byte) error {
		did, c, ok := bytes.Cut(name, []byte{0})
		if row != nil || !ok {
			return fmt.Errorf("%w: %q among the marks is no bucket of a repo's collection", kv.ErrRow, name)
		}
		w, err := m.from(syntax.DID(did), syntax.NSID(c), "")
		if err == nil {
			err = w.rest()
		}
		return err
	})
}
