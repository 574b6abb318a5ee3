package index

import (
	"errors"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
)

// ErrRevWentBack says that a host answered with a rev below one at which the
// repo was already read completely.
var ErrRevWentBack = errors.New("the host's rev is older than what the index holds")

// ErrUndone says that the account has ended, or has come back, since what is gone on
// with was begun, so that what that brought may be deleted, or what it deleted be there
// again; or that what was to be kept is not held any more. The repo is to be read anew.
var ErrUndone = errors.New("what the index holds of the account is not what it was when this was begun")

// ErrNotTheEnd says that a short page cannot be taken for the end of a listing:
// at its host they are known not to be, or the index holds records behind it.
var ErrNotTheEnd = errors.New("the short page is not the end of the listing")

// Listed is a record that a repo was found to hold.
type Listed struct {
	RKey   syntax.RecordKey
	Body   record.Body
	Source Source // of this record alone; zero: that of its reading
}

// Segment is a part of one collection's listing, in any order. It names each key once;
// earlier parts may have named it too.
type Segment struct {
	Collection syntax.NSID
	Records    []Listed
	Rejected   []syntax.RecordKey // listed, but not what they claim to be: they count as present. Each empty one counts
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

// Reading is what was read of one repo since the last commit about it.
type Reading struct {
	Host     string     // where it was read
	Rev      syntax.TID // the latest probe before the pages
	Source   Source
	Segments []Segment
}

// Segment is what a reading has listed of a collection.
func (r Reading) Segment(c syntax.NSID) Segment {
	all := Segment{Collection: c}
	for _, s := range r.Segments {
		switch {
		case s.Collection != c:
		case all.Records == nil && all.Rejected == nil:
			all = s
		default:
			all.Records, all.Rejected = slices.Concat(all.Records, s.Records), slices.Concat(all.Rejected, s.Rejected)
		}
	}
	return all
}

// Bytes estimates what a reading brings into the transaction.
func (r Reading) Bytes() int {
	n := 256
	for _, s := range r.Segments {
		for _, l := range s.Records {
			n += len(l.Body.Data) + rowCID + 64
		}
	}
	return n
}

// Tally counts the records of one repo, or of several.
type Tally struct {
	Records  int64 `json:"records,omitempty"`  // found in the repo and kept
	Created  int64 `json:"created,omitempty"`  // of these, not in the index before
	Updated  int64 `json:"updated,omitempty"`  // of these, different in the index before
	Deleted  int64 `json:"deleted,omitempty"`  // in the index, no longer in the repo
	Rejected int64 `json:"rejected,omitempty"` // listed, but not what they claim to be
}

// Unchanged is how many records the index held already.
func (t Tally) Unchanged() int64 { return max(t.Records-t.Created-t.Updated, 0) }

// Add adds o.
func (t *Tally) Add(o Tally) { t.Count(o, 1) }

// Count adds n times o.
func (t *Tally) Count(o Tally, n int64) {
	t.Records += n * o.Records
	t.Created += n * o.Created
	t.Updated += n * o.Updated
	t.Deleted += n * o.Deleted
	t.Rejected += n * o.Rejected
}
