package read

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
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

// isDoubtful reports whether a listing had entries that may stand for any record, or
// that are not what they are said to be. The whole repo tells what they are; what
// was listed is kept if it cannot be had.
func (r *reading) isDoubtful() bool {
	for _, c := range r.pass.read {
		if c.ambiguous || c.Extent == Broken {
			return true
		}
	}
	if r.absent.count() > fewConfirmed {
		return true
	}
	return r.hasRejected() || len(r.values.unproved) > 0
}

// hasRejected reports whether anything that is buffered is not what it is said to be.
func (r *reading) hasRejected() bool {
	return slices.ContainsFunc(r.segments, func(s index.Segment) bool { return len(s.Rejected) > 0 })
}

// isListingHopeless reports whether a listing has failed for good, in a way that says nothing
// of the whole repo: then that is tried, as a listing is where it fails.
func (r *reading) isListingHopeless(err error) bool {
	var failed *network.Error
	return errors.As(err, &failed) && isListable(failed.Reason) &&
		(r.isLastAttempt() || !failed.Reason.Retryable())
}

// listCollections are those to list of the repo.
func (r *reading) listCollections(ctx context.Context) ([]syntax.NSID, error) {
	if len(r.cfg.Targets) > 0 {
		return r.cfg.Targets, nil
	}
	has, err := r.cfg.Network.DescribeRepo(ctx, r.host, r.owed.DID)
	r.identityCurrent = false
	if err != nil {
		return nil, r.explainRefusal(ctx, err)
	}
	r.move(answer) // a moment of its own
	r.rejects = has.Rejected
	return r.wantedCollections(ctx, has.Collections)
}

// wantedCollections are the job's targets, or all that the repo has and all that the index
// holds of it.
func (r *reading) wantedCollections(ctx context.Context, has []syntax.NSID) ([]syntax.NSID, error) {
	if len(r.cfg.Targets) > 0 {
		return r.cfg.Targets, nil
	}
	repo, err := r.cfg.Store.Repo(ctx, r.owed.DID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	list := slices.Concat(has, repo.RepoCollections())
	// What was begun is ended, even if the repo has nothing of it any more.
	for c := range r.pass.read {
		list = append(list, c)
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(c syntax.NSID) bool {
		_, err := record.ParseCollection(c.String())
		return err != nil // older versions took such names
	}), nil
}

// listAll lists every collection once, from where it was left. It ends early where the
// repo is read in one piece meanwhile.
func (r *reading) listAll(ctx context.Context) error {
	if r.how == Unchanged {
		return nil
	}
	list, err := r.listCollections(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		if r.pass.read[c].Extent != Open {
			continue
		}
		if err := r.listCollection(ctx, c); err != nil || r.how == Whole {
			return err
		}
		if !r.mustCommit() {
			continue
		}
		if err := r.clearDoubt(ctx); err != nil || r.how == Whole {
			return err
		}
		if _, err := r.commitStep(ctx, nil); err != nil {
			return err
		}
	}
	return r.clearDoubt(ctx)
}

// clearDoubt reads the repo in one piece, which ends the pass, if what was listed leaves a
// doubt and nothing of it is committed yet.
func (r *reading) clearDoubt(ctx context.Context) error {
	if err := r.findUnlisted(ctx); err != nil || !r.mayTurnWhole() {
		return err
	}
	if err := r.proveFew(ctx); err != nil || !r.isDoubtful() {
		return err
	}
	return r.readWhole(ctx)
}

// listCollection lists one collection from where it was left to its end. One whose end
// cannot be found ends where that shows.
func (r *reading) listCollection(ctx context.Context, c syntax.NSID) error {
	l := r.openListing(c)
	for {
		if err := r.readPage(ctx, l); err != nil {
			return err
		}
		switch why := l.brokenReason(); {
		case l.isAtEnd():
			if l.short > 0 {
				r.pass.shortEnds = append(r.pass.shortEnds, l.short)
			}
			r.endCollection(&l.segment, Complete, "")
			return nil
		case why != "":
			r.endCollection(&l.segment, Broken, why)
			return nil
		}
		if ends, err := r.isEnd(ctx, l); err != nil {
			return err
		} else if ends {
			r.endCollection(&l.segment, EndAssumed, "")
			return nil
		}
		if !r.mustCommit() {
			continue
		}
		if r.mayTurnWhole() && r.buffer.isFull() && r.cfg.Buffered.Load() <= maxAllBuffered {
			// Long enough to be worth another try: what is buffered is not lost. It may be
			// kept for as long as the host likes to take, so only as long as all of it is little.
			if err := r.readWhole(ctx); err != nil || r.how == Whole {
				return err
			}
		}
		if err := r.commitPages(ctx, l); err != nil {
			return err
		}
	}
}

// listing is the listing of one collection that is under way.
type listing struct {
	segment

	asked string // the cursor of the page that was read last
	page  pageSeen
	turns int // pages that were read of it in this attempt
	idle  int // pages in a row that brought nothing new
	again int // pages in a row of steps that brought nothing new
	since int // pages since the last step
	short int // records on the last page that brought any, if it was not full
}

// pageSeen is what is known of a page once its records are taken.
type pageSeen struct {
	records, fresh, bytes, limit int
}

// openListing takes up the listing of a collection where it was left.
func (r *reading) openListing(c syntax.NSID) *listing {
	from := r.pass.read[c]
	l := &listing{segment: segment{
		did: r.owed.DID, values: &r.values, seg: index.Segment{Collection: c}, cursor: from.cursor, last: from.last, order: from.order, ambiguous: from.ambiguous,
	}}
	if from.cursor != "" {
		l.pages = 1
	}
	return l
}

// readPage reads the next page.
func (r *reading) readPage(ctx context.Context, l *listing) error {
	r.page.Close()
	page, err := r.cfg.Network.ListRecords(ctx, r.host, r.owed.DID, l.seg.Collection, l.cursor)
	r.identityCurrent = false
	if err != nil {
		return r.explainRefusal(ctx, err)
	}
	r.page = page
	r.countPage()
	l.asked, l.cursor = l.cursor, page.Cursor
	l.page = pageSeen{records: len(page.Records), limit: page.Limit}
	l.page.fresh, l.page.bytes = l.addPage(page.Records)
	if err := r.countBytes(l.page.bytes); err != nil {
		return err
	}
	if !r.buffer.isFull() {
		r.page.Close() // a large one is held until what it held is committed
	}
	if l.turns == 0 || l.page.fresh > 0 {
		r.move(answer)
	}
	if l.page.records >= l.page.limit {
		r.move(fill)
	}
	l.turns, l.since = l.turns+1, l.since+1
	if l.idle++; l.page.fresh == 0 {
		return nil
	}
	l.idle = 0
	if l.short == 0 {
		return nil
	}
	l.short = 0
	return r.refuteEnd(ctx)
}

// isAtEnd reports whether the page is the last: it says so, or it and its cursor are what
// stands at that cursor, nothing or the last record again.
func (l *listing) isAtEnd() bool {
	if l.cursor == "" {
		return true
	}
	rest := l.page.records == 0 || l.page.records == 1 && l.page.limit > 1 && l.tail == l.last
	return l.cursor == l.asked && l.page.fresh == 0 && rest
}

// brokenReason is why the listing cannot be followed to its end, if it cannot: what it leaves
// out is not known.
func (l *listing) brokenReason() string {
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

// commitPages commits what is buffered, and finds out whether any of it was new.
func (r *reading) commitPages(ctx context.Context, l *listing) error {
	fresh, err := r.commitStep(ctx, &l.segment)
	if err != nil {
		return err
	}
	if l.again += l.since; fresh > 0 {
		l.again = 0
	}
	l.since = 0
	return nil
}

// endCollection takes a collection that was read up to some extent. broken is why it
// ends there, if its listing cannot be followed.
func (r *reading) endCollection(s *segment, to Extent, broken string) {
	c := collection{Extent: to, broken: broken, ambiguous: s.ambiguous, order: s.order}
	if s.pages <= 1 {
		c.order = jobs.OrderUnknown // one page is one moment: nothing can slip
	}
	r.segments = append(r.segments, s.inOrder())
	r.pass.read[s.seg.Collection] = c
}

// countPage counts a page of a listing. The first says nothing of what is to come, and what
// an earlier attempt had is nothing new.
func (r *reading) countPage() {
	if r.reached++; r.reached > max(1, r.owed.Reached) {
		r.cfg.Progress(r.owed.Host)
	}
}

// countBytes counts what a page brought, and refuses a repo that does not end.
func (r *reading) countBytes(bytes int) error {
	r.buffer.pages++
	r.addBuffer(bytes)
	r.pass.pages, r.pass.bytes = r.pass.pages+1, r.pass.bytes+int64(bytes)
	if r.pass.pages > maxPages || r.pass.bytes > maxBytes {
		return &network.Error{
			Reason: outcome.ReasonTooLarge, Op: "listRecords", Host: r.host,
			Err: fmt.Errorf("%d pages with %d bytes, and no end", r.pass.pages, r.pass.bytes),
		}
	}
	return nil
}

// concludePass finds out whether the listing has shown the repo at one rev. Its state is
// final then, and after the last pass.
func (r *reading) concludePass(ctx context.Context) error {
	why := r.incompleteReason(true)
	if why != "" && r.mayYetComplete() {
		return &network.Error{Reason: outcome.ReasonIncomplete, Op: "listRecords", Host: r.host, Err: errors.New(why)}
	}
	// One short page that held everything was one moment, not before the probe.
	if r.how != Stepping && r.sure == OneMoment && why == "" {
		r.move(confirm)
		return nil
	}
	before := r.rev
	if err := r.confirmAbsent(ctx); err != nil {
		return err
	}
	if err := r.probe(ctx); err != nil {
		return err
	}
	oneRev := r.rev == r.pass.first
	switch {
	case oneRev && r.incompleteReason(true) == "":
		r.move(confirm)
	case r.pass.number+1 >= maxPasses:
		r.rev, r.absent.unclear = before, r.incompleteReason(oneRev)
		if !oneRev {
			r.absent.confirmed = nil
		}
		if r.absent.unclear == "" {
			r.move(change)
		} else {
			r.move(miss)
		}
	}
	return nil
}

// explainRefusal explains a listing that the host refuses, of records or of collections:
// hosts answer alike for accounts that are missing and for those that are inactive.
func (r *reading) explainRefusal(ctx context.Context, err error) error {
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
