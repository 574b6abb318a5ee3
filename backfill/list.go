package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/record"
	"appview/store"
)

const (
	// maxEmptyPages is how many pages without a record may follow each other in
	// a listing that still gives new cursors.
	maxEmptyPages = 3
	// maxPages and maxBytes bound a pass over one repo. No repo known comes near;
	// a host that makes records up never ends.
	maxPages = 50_000
	maxBytes = 4 << 30
)

// doubtful tells whether a listing had entries that may stand for any record, or
// that are not what they are said to be. The whole repo tells what they are; what
// was listed is kept if it cannot be had.
func (r *reader) doubtful() bool {
	for _, at := range r.at.Read {
		if at.Partial {
			return true
		}
	}
	return r.rejected() || len(r.values.unproved) > 0
}

// rejected reports whether anything that is buffered is not what it is said to be.
func (r *reader) rejected() bool {
	return slices.ContainsFunc(r.segments, func(s store.Segment) bool { return len(s.Rejected) > 0 })
}

// hopeless tells whether a listing has failed for good, in a way that says nothing
// of the whole repo: then that is tried, as a listing is where it fails.
func (r *reader) hopeless(err error) bool {
	var failed *network.Error
	return errors.As(err, &failed) && listable(failed.Reason) &&
		(r.o.Attempts+1 >= r.w.b.cfg.Attempts || !failed.Reason.Retryable())
}

// collections are those to list of the repo.
func (r *reader) collections(ctx context.Context) ([]syntax.NSID, error) {
	if len(r.w.targets) > 0 {
		return r.w.targets, nil
	}
	has, err := r.w.b.cfg.Network.DescribeRepo(ctx, r.host, r.o.DID)
	r.fresh = false
	if err != nil {
		return nil, r.unlisted(ctx, err)
	}
	r.requests++ // a moment of its own
	r.rejects = has.Rejected
	return r.wanted(ctx, has.Collections)
}

// wanted are the job's targets, or all that the repo has and all that the index
// holds of it.
func (r *reader) wanted(ctx context.Context, has []syntax.NSID) ([]syntax.NSID, error) {
	if len(r.w.targets) > 0 {
		return r.w.targets, nil
	}
	repo, err := r.w.b.cfg.Store.Repo(ctx, r.o.DID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	list := slices.Concat(has, repo.RepoCollections())
	// What was begun is ended, even if the repo has nothing of it any more.
	for c := range r.at.Read {
		list = append(list, c)
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(c syntax.NSID) bool {
		_, err := record.ParseCollection(c.String())
		return err != nil // older versions took such names
	}), nil
}

// pass reads every collection once, from where it was left.
func (r *reader) pass(ctx context.Context) error {
	if r.same {
		return nil
	}
	list, err := r.collections(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		if r.at.Read[c].Done {
			continue
		}
		if err := r.list(ctx, c); err != nil {
			return err
		}
		if r.buffered() {
			if err := r.save(ctx, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// list reads one collection from where it was left to its end.
func (r *reader) list(ctx context.Context, c syntax.NSID) error {
	from := r.at.Read[c]
	s := stretch{did: r.o.DID, values: &r.values, seg: store.Segment{Collection: c, Below: from.Below, Partial: from.Partial}, last: from.Below}
	empty := 0
	short := 0 // records on the last page that has any, if it was not full
	for cursor, first := from.Cursor, true; ; first = false {
		r.page.Close()
		page, err := r.w.b.cfg.Network.ListRecords(ctx, r.host, r.o.DID, c, cursor)
		r.fresh = false
		if err != nil {
			return r.unlisted(ctx, err)
		}
		r.page = page
		r.turned()
		if first || len(page.Records) > 0 {
			r.requests++
		}
		size := s.add(page.Records)
		if err := r.count(size); err != nil {
			return err
		}
		if !r.long() {
			r.page.Close() // a large one is held until what it held is committed
		}
		r.full = r.full || len(page.Records) >= page.Limit
		if empty++; len(page.Records) > 0 {
			empty = 0
			if short > 0 {
				if err := r.goesOn(ctx); err != nil {
					return err
				}
			}
			short = 0
		}
		switch {
		case page.Cursor == "", page.Cursor == cursor && empty > 0:
			if short > 0 {
				r.ends = append(r.ends, short)
			}
			return r.end(&s, false)
		case page.Cursor == cursor:
			return r.broken("the cursor %.100q came twice", cursor)
		case !utf8.ValidString(page.Cursor):
			return r.broken("the cursor %.100q is no text", page.Cursor)
		case empty == maxEmptyPages:
			return r.broken("%d pages of %s in a row are empty, and there is always another cursor", empty, c)
		}
		cursor = page.Cursor
		if n := len(page.Records); n > 0 && n < page.Limit {
			if end, err := r.isEnd(ctx, &s, n, size); err != nil {
				return err
			} else if end {
				return r.end(&s, true)
			}
			short = n
		}
		if !r.buffered() {
			continue
		}
		if !r.steps && r.long() && r.w.b.buffered.Load() <= maxAllBuffered {
			// Long enough to be worth another try: what is buffered is not lost. It may be
			// kept for as long as the host likes to take, so only as long as all of it is little.
			if done, err := r.whole(ctx); err != nil {
				return err
			} else if done {
				return errWhole
			}
		}
		if s.unordered {
			return r.broken("a long listing of %s is out of key order", c)
		}
		s.cursor = cursor
		if err := r.save(ctx, &s); err != nil {
			return err
		}
	}
}

// end takes a collection that was listed to its end, or to a page that is taken
// for it.
func (r *reader) end(s *stretch, assumed bool) error {
	if s.unordered && s.seg.Below != "" {
		return r.broken("a long listing of %s is out of key order", s.seg.Collection)
	}
	s.finish()
	at := store.ReadUpTo{Done: true, Partial: s.seg.Partial}
	if assumed {
		at.Assumed, at.Below, s.seg.Down = true, s.last, s.last
	}
	r.segments = append(r.segments, s.seg)
	r.at.Read[s.seg.Collection] = at
	return nil
}

// count notes what a page brought, and refuses a repo that does not end.
func (r *reader) count(bytes int) error {
	r.pages++
	r.hold(bytes)
	r.at.Pages, r.at.Bytes = r.at.Pages+1, r.at.Bytes+int64(bytes)
	if r.at.Pages > maxPages || r.at.Bytes > maxBytes {
		return &network.Error{
			Reason: network.ReasonTooLarge, Op: "listRecords", Host: r.host,
			Err: fmt.Errorf("%d pages with %d bytes, and no end", r.at.Pages, r.at.Bytes),
		}
	}
	return nil
}

// broken is the failure of a listing that cannot be followed to its end: what it
// leaves out cannot be told.
func (r *reader) broken(format string, args ...any) error {
	return &network.Error{Reason: network.ReasonIncomplete, Op: "listRecords", Host: r.host, Err: fmt.Errorf(format, args...)}
}

// unlisted explains a listing that the host refuses, of records or of collections:
// hosts answer alike for accounts that are missing and for those that are inactive.
func (r *reader) unlisted(ctx context.Context, err error) error {
	var failed *network.Error
	if !errors.As(err, &failed) || failed.Reason != network.ReasonNotFound {
		return err
	}
	if err := r.probe(ctx); err != nil {
		return err
	}
	// It is there, and active: it went and came back, or the host is confused.
	failed.Reason = network.ReasonIncomplete
	return failed
}

// stretch gathers the records of a listing, from one commit to the next.
type stretch struct {
	did       syntax.DID
	values    *values
	seg       store.Segment
	cursor    string
	last      syntax.RecordKey // the last key listed
	unordered bool             // the keys do not come in order
}

// add checks and takes the records of a page. It returns about how many bytes
// they hold.
func (s *stretch) add(page []network.Listed) (bytes int) {
	prefix := record.URI{DID: s.did, Collection: s.seg.Collection}.String()
	for _, l := range page {
		bytes += len(l.Value) + len(l.URI) + recordBytes
		key, ok := strings.CutPrefix(l.URI, prefix)
		if !ok {
			// It may stand for any record of the collection.
			s.seg.Partial = true
			s.seg.Rejected = append(s.seg.Rejected, "")
			continue
		}
		rkey, err := syntax.ParseRecordKey(key)
		if err != nil {
			s.seg.Partial = true // likewise
			s.seg.Rejected = append(s.seg.Rejected, "")
			continue
		}
		if s.last != "" && rkey >= s.last {
			s.unordered = true
		}
		s.last = rkey
		if body, ok := s.values.read(path{s.seg.Collection, rkey}, l); ok {
			s.seg.Records = append(s.seg.Records, store.Listed{RKey: rkey, Body: body})
		} else {
			s.seg.Rejected = append(s.seg.Rejected, rkey)
		}
	}
	return bytes
}

// recordBytes is about what a record takes in memory beside its value.
const recordBytes = 200

// finish brings a listing that was out of order into it, the first mention of a
// key counting.
func (s *stretch) finish() {
	if !s.unordered {
		return
	}
	slices.SortStableFunc(s.seg.Records, func(a, b store.Listed) int {
		if a.RKey > b.RKey {
			return -1
		}
		if a.RKey < b.RKey {
			return 1
		}
		return 0
	})
	s.seg.Records = slices.CompactFunc(s.seg.Records, func(a, b store.Listed) bool { return a.RKey == b.RKey })
}
