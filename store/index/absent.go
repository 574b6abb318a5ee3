package index

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// absence finds the records of a repo's collection that were not listed.
type absence struct {
	marks   Marks
	records *kv.Bucket // nil: none of anybody's
	id      rid        // 0: none of the repo's
	did     syntax.DID
	c       syntax.NSID
	named   map[syntax.RecordKey]struct{} // listed since the last step
}

func absenceIn(tx *kv.Tx, marks Marks, did syntax.DID, seg Segment) (absence, error) {
	id, _, err := ridOf(tx, did)
	a := absence{marks: marks, records: recordsOf(tx, seg.Collection), id: id, did: did, c: seg.Collection}
	if a.records != nil && id != 0 {
		a.named = seg.keys()
	}
	return a, err
}

// Unlisted returns up to limit keys of records that the index holds of a repo's
// collection and that were not listed: not by earlier steps, and not by seg.
func Unlisted(tx *kv.Tx, marks Marks, did syntax.DID, seg Segment, limit int) ([]syntax.RecordKey, error) {
	a, err := absenceIn(tx, marks, did, seg)
	if err != nil {
		return nil, err
	}
	return a.page("", limit)
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
	marks, err := a.marks.from(a.did, a.c, from)
	if err != nil {
		return nil, err
	}
	for ; bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		_, rkey, ok := splitRecordKey(k)
		if !ok {
			return nil, fmt.Errorf("%w: record key %x of %s", kv.ErrRow, k, a.c)
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

// removalPage is how many keys are in memory at a time while what was not listed is
// deleted.
const removalPage = 1_000

// deleteAbsent deletes what the listing of a collection has shown to be absent, as of
// the rev before its first page: whatever a complete one has not named, or only what was
// confirmed. What another job has seen since, in a complete reading, is kept.
func (r *repoRow) deleteAbsent(collection syntax.NSID, c Change, a *Applied) error {
	if r.rid == 0 {
		return nil
	}
	absent, err := absenceIn(r.g.tx, c.Marks, c.DID, c.Reading.Segment(collection))
	if err != nil {
		return err
	}
	confirmed, some := c.Confirmed[collection]
	only := Segment{Rejected: confirmed}.keys()
	for from, more := syntax.RecordKey(""), true; more; {
		keys, err := absent.page(from, removalPage)
		if err != nil {
			return err
		}
		if more = len(keys) == removalPage; more {
			from = keys[len(keys)-1] + "\x00"
		}
		for _, k := range keys {
			if _, ok := only[k]; c.Floor < r.repo.Collections[collection].Floor || some && !ok {
				a.Guarded = true
				continue
			}
			what, err := r.remove(collection, k, c.Floor)
			if err != nil {
				return err
			}
			a.note(what)
		}
	}
	return nil
}
