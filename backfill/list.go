package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/network/outcome"
	"appview/record"
	"appview/store"
)

const (
	// maxIdlePages is how many pages without a record that was not listed before may
	// follow each other in a listing that still gives new cursors: it wraps, or never ends.
	maxIdlePages = 3
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
		if at.Partial || at.Broken != "" {
			return true
		}
	}
	if r.countMissing() > fewConfirmed {
		return true
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
		if !r.buffered() {
			continue
		}
		if err := r.tryWhole(ctx); err != nil {
			return err
		}
		if _, err := r.save(ctx, nil); err != nil {
			return err
		}
	}
	return r.tryWhole(ctx)
}

// tryWhole reads the repo in one piece, which ends the pass, if what was listed leaves a
// doubt and nothing of it is committed yet.
func (r *reader) tryWhole(ctx context.Context) error {
	if err := r.findMissing(ctx); err != nil || r.steps {
		return err
	}
	if err := r.proveFew(ctx); err != nil || !r.doubtful() {
		return err
	}
	done, err := r.whole(ctx)
	if err == nil && done {
		return errWhole
	}
	return err
}

// list reads one collection from where it was left to its end. One whose end cannot be
// found ends where that shows.
func (r *reader) list(ctx context.Context, c syntax.NSID) error {
	l := r.openListing(c)
	for {
		if err := r.turnPage(ctx, l); err != nil {
			return err
		}
		switch why := l.broken(); {
		case l.atEnd():
			if l.short > 0 {
				r.ends = append(r.ends, l.short)
			}
			r.end(&l.stretch, store.ReadUpTo{Done: true})
			return nil
		case why != "":
			r.end(&l.stretch, store.ReadUpTo{Done: true, Broken: why})
			return nil
		}
		if ends, err := r.isEnd(ctx, l); err != nil {
			return err
		} else if ends {
			r.end(&l.stretch, store.ReadUpTo{Done: true, Assumed: true})
			return nil
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
		if err := r.step(ctx, l); err != nil {
			return err
		}
	}
}

// recordListing is the listing of one collection that is under way.
type recordListing struct {
	stretch

	asked string // the cursor of the page that was read last
	page  pageSeen
	first bool // nothing was read of it in this attempt
	idle  int  // pages in a row that brought nothing new
	again int  // pages in a row of steps that brought nothing new
	since int  // pages since the last step
	short int  // records on the last page that brought any, if it was not full
}

// pageSeen is what is known of a page once its records are taken.
type pageSeen struct {
	records, fresh, bytes, limit int
}

// openListing takes up the listing of a collection where it was left.
func (r *reader) openListing(c syntax.NSID) *recordListing {
	from := r.at.Read[c]
	l := &recordListing{first: true, stretch: stretch{
		did: r.o.DID, values: &r.values, seg: store.Segment{Collection: c}, cursor: from.Cursor, last: from.Last, order: from.Order, partial: from.Partial,
	}}
	if from.Cursor != "" {
		l.pages = 1
	}
	return l
}

// turnPage reads the next page.
func (r *reader) turnPage(ctx context.Context, l *recordListing) error {
	r.page.Close()
	page, err := r.w.b.cfg.Network.ListRecords(ctx, r.host, r.o.DID, l.seg.Collection, l.cursor)
	r.fresh = false
	if err != nil {
		return r.unlisted(ctx, err)
	}
	r.page = page
	r.turned()
	l.asked, l.cursor = l.cursor, page.Cursor
	l.page = pageSeen{records: len(page.Records), limit: page.Limit}
	l.page.fresh, l.page.bytes = l.add(page.Records)
	if err := r.count(l.page.bytes); err != nil {
		return err
	}
	if !r.long() {
		r.page.Close() // a large one is held until what it held is committed
	}
	if l.first || l.page.fresh > 0 {
		r.requests++
	}
	r.full = r.full || l.page.records >= l.page.limit
	l.first, l.since = false, l.since+1
	if l.idle++; l.page.fresh == 0 {
		return nil
	}
	l.idle = 0
	if l.short == 0 {
		return nil
	}
	l.short = 0
	return r.goesOn(ctx)
}

// atEnd reports whether the page is the last: it says so, or it and its cursor are what
// stands at that cursor, nothing or the last record again.
func (l *recordListing) atEnd() bool {
	if l.cursor == "" {
		return true
	}
	rest := l.page.records == 0 || l.page.records == 1 && l.page.limit > 1 && l.tail == l.last
	return l.cursor == l.asked && l.page.fresh == 0 && rest
}

// broken is why the listing cannot be followed to its end, if it cannot: what it leaves
// out is not known.
func (l *recordListing) broken() string {
	switch {
	case l.cursor == l.asked:
		return fmt.Sprintf("the cursor %.100q came twice", l.cursor)
	case !utf8.ValidString(l.cursor):
		return fmt.Sprintf("the cursor %.100q is no text", l.cursor)
	case l.idle >= maxIdlePages, l.again >= maxIdlePages:
		return fmt.Sprintf("%d pages of %s in a row bring nothing new, and there is always another cursor", max(l.idle, l.again), l.seg.Collection)
	default:
		return ""
	}
}

// step commits what is buffered, and finds out whether any of it was new.
func (r *reader) step(ctx context.Context, l *recordListing) error {
	fresh, err := r.save(ctx, &l.stretch)
	if err != nil {
		return err
	}
	if l.again += l.since; fresh > 0 {
		l.again = 0
	}
	l.since = 0
	return nil
}

// end takes a collection that was listed to its end, to a page that is taken for it, or
// as far as can be.
func (r *reader) end(s *stretch, at store.ReadUpTo) {
	at.Partial, at.Order = s.partial, s.order
	if s.pages <= 1 {
		at.Order = store.OrderUnknown // one page is one moment: nothing can slip
	}
	r.segments = append(r.segments, s.sorted())
	r.at.Read[s.seg.Collection] = at
}

// count notes what a page brought, and refuses a repo that does not end.
func (r *reader) count(bytes int) error {
	r.pages++
	r.hold(bytes)
	r.at.Pages, r.at.Bytes = r.at.Pages+1, r.at.Bytes+int64(bytes)
	if r.at.Pages > maxPages || r.at.Bytes > maxBytes {
		return &network.Error{
			Reason: outcome.ReasonTooLarge, Op: "listRecords", Host: r.host,
			Err: fmt.Errorf("%d pages with %d bytes, and no end", r.at.Pages, r.at.Bytes),
		}
	}
	return nil
}

// unlisted explains a listing that the host refuses, of records or of collections:
// hosts answer alike for accounts that are missing and for those that are inactive.
func (r *reader) unlisted(ctx context.Context, err error) error {
	var failed *network.Error
	if !errors.As(err, &failed) || failed.Reason != outcome.ReasonNotFound {
		return err
	}
	if err := r.probe(ctx); err != nil {
		return err
	}
	// It is there, and active: it went and came back, or the host is confused.
	failed.Reason = outcome.ReasonIncomplete
	return failed
}
