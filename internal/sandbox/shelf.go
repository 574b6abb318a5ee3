package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox/encode"
)

// record is one record at one rev. It is never changed after it was made, so
// that answers can be put together outside of any lock.
type record struct {
	rkey  syntax.RecordKey
	rev   syntax.TID
	cid   cid.Cid
	block []byte // DAG-CBOR
	item  []byte // {"uri":…,"cid":…,"value":…}, as getRecord and listRecords send it
	value int    // where the value begins in item
	text  string // the CID as text
	odd   bool
}

func newRecord(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey, rev syntax.TID, value map[string]any, odd bool) (*record, error) {
	block, body, err := encode.Value(value)
	if err != nil {
		return nil, fmt.Errorf("make record %s: %w", uriOf(did, collection, rkey), err)
	}
	c, err := encode.CID(block)
	if err != nil {
		return nil, fmt.Errorf("hash record %s: %w", uriOf(did, collection, rkey), err)
	}
	r := &record{rkey: rkey, rev: rev, cid: c, block: block, text: c.String(), odd: odd}
	uri := uriOf(did, collection, rkey)
	r.item = make([]byte, 0, len(`{"uri":"","cid":"","value":}`)+len(uri)+len(r.text)+len(body))
	r.item = append(append(append(r.item, `{"uri":"`...), uri...), `","cid":"`...)
	r.item = append(append(r.item, r.text...), `","value":`...)
	r.value = len(r.item)
	r.item = append(append(r.item, body...), '}')
	return r, nil
}

// json is the record's value.
func (r *record) json() json.RawMessage {
	end := len(r.item) - 1
	return r.item[r.value:end:end]
}

func uriOf(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) string {
	return "at://" + did.String() + "/" + collection.String() + "/" + rkey.String()
}

// shelf holds the records of one collection of one repo, sorted by record key.
type shelf struct {
	records []*record
}

func (s *shelf) find(rkey syntax.RecordKey) (int, bool) {
	return slices.BinarySearchFunc(s.records, rkey, func(r *record, k syntax.RecordKey) int {
		return strings.Compare(string(r.rkey), string(k))
	})
}

// get is the record with the key, or nil.
func (s *shelf) get(rkey syntax.RecordKey) *record {
	if s == nil {
		return nil
	}
	if i, ok := s.find(rkey); ok {
		return s.records[i]
	}
	return nil
}

func (s *shelf) put(r *record) {
	i, ok := s.find(r.rkey)
	if ok {
		s.records[i] = r
		return
	}
	s.records = slices.Insert(s.records, i, r)
}

func (s *shelf) remove(rkey syntax.RecordKey) {
	if i, ok := s.find(rkey); ok {
		s.records = slices.Delete(s.records, i, i+1)
	}
}

// page copies out up to limit records that come after cursor, in descending
// order of keys, or ascending if reverse.
func (s *shelf) page(cursor syntax.RecordKey, limit int, reverse bool) []*record {
	if s == nil {
		return nil
	}
	if reverse {
		from := 0
		if cursor != "" {
			i, ok := s.find(cursor)
			if from = i; ok {
				from = i + 1
			}
		}
		to := min(from+limit, len(s.records))
		return slices.Clone(s.records[from:to])
	}
	to := len(s.records)
	if cursor != "" {
		to, _ = s.find(cursor)
	}
	page := slices.Clone(s.records[max(0, to-limit):to])
	slices.Reverse(page)
	return page
}
