package read

import (
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/record"
	"appview/store/index"
	"appview/store/jobs"
)

// segment gathers the records of a listing, from one commit to the next.
type segment struct {
	did    syntax.DID
	values *values
	seg    index.Segment
	cursor string
	last   syntax.RecordKey // the last key listed for the first time
	order  jobs.Order       // of the keys so far
	tail   syntax.RecordKey // the last key of the page
	pages  int              // that brought something new, over all steps

	ambiguous bool // some entries may stand for any record

	before []syntax.RecordKey            // keys of the segment before this one
	listed map[syntax.RecordKey]struct{} // those and these; nil while the order shows that each key is new
}

// recordBytes is about what a record takes in memory beside its value.
const recordBytes = 200

// addPage checks and takes the records of a page that were not listed before. It returns
// how many these are, and about how many bytes the page holds.
func (s *segment) addPage(page []network.Listed) (fresh, bytes int) {
	prefix := record.URI{DID: s.did, Collection: s.seg.Collection}.String()
	had := len(s.seg.Records) + len(s.seg.Rejected)
	s.tail = "" // the key before this one on the page
	for _, l := range page {
		bytes += len(l.Value) + len(l.URI) + recordBytes
		key, ours := strings.CutPrefix(l.URI, prefix)
		rkey, err := syntax.ParseRecordKey(key)
		if !ours || err != nil {
			s.rejectEntry(l.URI)
			continue
		}
		isNew := s.placeKey(rkey)
		if s.tail = rkey; !isNew {
			continue
		}
		if body, ok := s.values.read(path{s.seg.Collection, rkey}, l); ok {
			s.seg.Records = append(s.seg.Records, index.Listed{RKey: rkey, Body: body})
		} else {
			s.seg.Rejected = append(s.seg.Rejected, rkey)
		}
	}
	if fresh = len(s.seg.Records) + len(s.seg.Rejected) - had; fresh > 0 {
		s.pages++
	}
	return fresh, bytes
}

// rejectEntry counts an entry that names no record of the collection, and may stand for any.
func (s *segment) rejectEntry(says string) {
	s.ambiguous = true
	rkey := syntax.RecordKey("")
	if says != "" {
		if rkey = index.UnnamedKey(says); s.hasKey(rkey) {
			return
		}
		s.listed[rkey] = struct{}{}
	}
	s.seg.Rejected = append(s.seg.Rejected, rkey)
}

// placeKey finds out whether a key is listed for the first time, and in which order that is.
// A page may begin with what the one before it ended with, in the same order. Whatever
// else is listed again is a sign of no order, since the page then began anywhere.
func (s *segment) placeKey(rkey syntax.RecordKey) (isNew bool) {
	order := s.order.With(s.last, rkey)
	if rkey != s.last && order != jobs.OrderNone {
		s.order, s.last = order, rkey
		s.noteKey(rkey)
		return true
	}
	if rkey == s.last || s.hasKey(rkey) {
		if s.order != jobs.OrderUnknown && s.order.With(s.tail, rkey) != s.order {
			s.order = jobs.OrderNone
		}
		return false
	}
	s.order, s.last = jobs.OrderNone, rkey
	s.noteKey(rkey)
	return true
}

func (s *segment) noteKey(rkey syntax.RecordKey) {
	if s.listed != nil {
		s.listed[rkey] = struct{}{}
	}
}

// hasKey reports whether a key is known to have been listed.
func (s *segment) hasKey(rkey syntax.RecordKey) bool {
	if s.listed == nil {
		s.listed = map[syntax.RecordKey]struct{}{}
		for _, k := range slices.Concat(s.before, s.keys()) {
			s.listed[k] = struct{}{}
		}
	}
	_, ok := s.listed[rkey]
	return ok
}

// keys are those of the segment.
func (s *segment) keys() []syntax.RecordKey {
	keys := make([]syntax.RecordKey, 0, len(s.seg.Records)+len(s.seg.Rejected))
	for _, l := range s.seg.Records {
		keys = append(keys, l.RKey)
	}
	return append(keys, s.seg.Rejected...)
}

// beginNext begins the next segment of the listing.
func (s *segment) beginNext() {
	s.before, s.listed = s.keys(), nil
	s.seg = index.Segment{Collection: s.seg.Collection}
}

// inOrder is what was gathered, with its records in key order, the highest first, if they came in
// none: the index grows by the order in which it is given them.
func (s *segment) inOrder() index.Segment {
	if s.order == jobs.OrderNone {
		slices.SortStableFunc(s.seg.Records, func(a, b index.Listed) int { return strings.Compare(b.RKey.String(), a.RKey.String()) })
	}
	return s.seg
}
