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
	// maxPasses is how often a repo that changes while it is read is read, before
	// what was read is taken as it is.
	maxPasses = 3
	// maxBuffered and maxBufferedBytes bound what is read of a repo before it is
	// committed as a step.
	maxBuffered      = 5 // pages
	maxBufferedBytes = 2 << 20
	// maxAllBuffered bounds it over all repos that are being read: past it, a repo
	// with more than its small share is committed as a step earlier.
	maxAllBuffered = 64 << 20
	smallShare     = 64 << 10
	// fullPage is a page that may have had more behind it when it was read.
	fullPage = 100
	// maxEmptyPages is how many pages without a record may follow each other in
	// a listing that still gives new cursors.
	maxEmptyPages = 3
	// maxPages and maxBytes bound a pass over one repo. No repo known comes near;
	// a host that makes records up never ends.
	maxPages = 50_000
	maxBytes = 4 << 30
)

// errMoved says that the repo lives at another host.
type errMoved struct{ to network.Host }

func (e errMoved) Error() string { return "the repo has moved to " + string(e.to) }

// errGone says that the repo is unavailable, on the word of its current host or
// of its DID document.
type errGone struct {
	reason network.Reason
	detail string
}

func (e errGone) Error() string { return "the repo is unavailable: " + string(e.reason) }

// reader reads one repo.
type reader struct {
	w    *worker
	o    store.Owed
	host network.Host

	fresh  bool // its identity was looked up in this attempt
	ident  network.Identity
	rev    syntax.TID // the latest probe
	source store.Source
	at     store.Position
	steps  bool // part of this pass is committed: at says how far
	saved  bool // some of that in this attempt

	segments []store.Segment
	pages    int // buffered
	bytes    int
	held     int64 // of Backfill.buffered
	listing  bool  // getRepo will not do
	requests int   // that each saw the repo at a moment of its own, in this pass
	full     bool
}

// readRepo reads one repo and hands over the result.
func (w *worker) readRepo(ctx context.Context, h hand) {
	if w.b.cfg.Store.Denied(h.DID, h.Host) {
		w.settleWithout(ctx, h, h.Owed, network.ReasonDenied)
		return
	}
	if !w.b.claims.take(h.DID) {
		h.done(errLater)
		return
	}
	defer w.b.claims.release(h.DID)
	r := &reader{w: w, o: h.Owed, host: network.Host(h.Host), source: store.SourceListRecords}
	exact, err := r.read(ctx)
	if err != nil {
		r.drop()
	}
	if r.saved {
		h.gotOn()
	}
	var (
		failed *network.Error
		moved  errMoved
		gone   errGone
	)
	if errors.As(err, &failed) && (r.o.Attempts+1 >= w.b.cfg.Attempts || !failed.Reason.Retryable()) {
		// Before it is given up: is this still the host to ask?
		if doubt := r.doubt(ctx); errors.As(doubt, &moved) || errors.As(doubt, &gone) {
			err = doubt
		}
	}
	switch {
	case err == nil:
		w.settleRead(ctx, h, r, exact)
	case errors.As(err, &moved) && h.Moved:
		w.missed(ctx, h, r.o, &network.Error{
			Reason: network.ReasonIncomplete, Op: "read repo", Host: r.host, Err: fmt.Errorf("%w for the second time", moved),
		})
	case errors.As(err, &moved):
		w.log.DebugContext(ctx, "repo has moved", "did", h.DID, "host", h.Host, "to", moved.to)
		w.rehost(ctx, h, string(moved.to))
	case errors.As(err, &gone):
		r.o.Detail = gone.detail
		w.settleWithout(ctx, h, r.o, gone.reason)
	case errors.As(err, &failed) && r.lost(failed.Reason):
		w.missed(ctx, h, r.o, r.anew(ctx, failed))
	default:
		w.missed(ctx, h, r.o, err)
	}
}

// lost tells whether a repo read in steps cannot be gone on with: the host does
// not take its own cursor any more, or the listing has lost its order.
func (r *reader) lost(reason network.Reason) bool {
	return r.steps && !r.saved && (reason == network.ReasonHTTP4xx || reason == network.ReasonIncomplete)
}

// anew forgets how far the repo was read, so that the next attempt begins at its
// beginning.
func (r *reader) anew(ctx context.Context, failed *network.Error) error {
	if err := r.restart(ctx); err != nil {
		return err
	}
	failed.Reason = network.ReasonIncomplete
	return failed
}

// read reads the repo, in one piece or by listing it, as often as it takes to see
// it at one rev. It reports whether it did.
func (r *reader) read(ctx context.Context) (exact bool, err error) {
	if err := r.probe(ctx); err != nil {
		return false, err
	}
	if err := r.resume(ctx); err != nil {
		return false, err
	}
	many := len(r.w.targets) == 0 || len(r.w.targets) > maxListed
	begun := r.o.Position != nil && r.o.Position.Whole
	if !r.steps && (many || begun) {
		if done, err := r.whole(ctx); done || err != nil {
			return done, err
		}
	}
	for {
		err := r.pass(ctx)
		if errors.Is(err, errWhole) {
			return true, nil
		}
		if err == nil && r.doubtful() {
			if done, err := r.whole(ctx); done || err != nil {
				return done, err
			}
		}
		if err != nil {
			return false, err
		}
		// One short page that held everything was one moment, not before the probe.
		if !r.steps && r.requests <= 1 && !r.full {
			return true, nil
		}
		before := r.rev
		if err := r.probe(ctx); err != nil {
			return false, err
		}
		switch {
		case r.rev == r.at.First:
			return true, nil
		case r.at.Pass+1 >= maxPasses:
			r.rev = before
			return false, nil
		}
		if err := r.restart(ctx); err != nil {
			return false, err
		}
	}
}

// doubtful tells whether a listing had entries that may stand for any record. The
// whole repo tells what they are; what was listed is kept if it cannot be had.
func (r *reader) doubtful() bool {
	if r.steps {
		return false
	}
	for _, at := range r.at.Read {
		if at.Partial {
			return true
		}
	}
	return false
}

// resume takes up a repo where it was left. One that was being read in one piece
// is read anew: what of it is in the index already does not change.
func (r *reader) resume(ctx context.Context) error {
	r.begin(store.Position{First: r.rev})
	if r.o.Position == nil {
		return nil
	}
	r.steps = true
	if r.o.Position.Whole {
		r.at.Pass = r.o.Position.Pass
		if err := r.w.b.cfg.Store.Restart(ctx, r.w.seq, r.o.Host, r.o.DID, r.at); err != nil {
			return err
		}
		r.steps = false
		return nil
	}
	read := r.at.Read
	if r.at = *r.o.Position; r.at.Read == nil {
		r.at.Read = read
	}
	return nil
}

// restart begins a new pass at the rev just probed.
func (r *reader) restart(ctx context.Context) error {
	r.begin(store.Position{First: r.rev, Pass: r.at.Pass + 1})
	if !r.steps {
		return nil
	}
	return r.w.b.cfg.Store.Restart(ctx, r.w.seq, r.o.Host, r.o.DID, r.at)
}

// probe asks the host for the repo's rev and whether its account is active. Only
// the current host's word counts: any other answer than active, and a rev that
// the index is ahead of, lead to a look-up of the identity first.
func (r *reader) probe(ctx context.Context) error {
	status, err := r.w.b.cfg.Network.RepoStatus(ctx, r.host, r.o.DID)
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == network.ClassUnavailable:
		return r.gone(ctx, failed.Reason, detail(failed))
	case err != nil:
		return err
	case !status.Active && status.Reason().Class() != network.ClassUnavailable:
		// Out of step, throttled, or a word that we do not know: it may pass.
		return &network.Error{
			Reason: status.Reason(), Op: "getRepoStatus", Host: r.host, Err: fmt.Errorf("the account is %q", status.Status),
		}
	case !status.Active:
		return r.gone(ctx, status.Reason(), "")
	}
	floor, err := r.w.b.cfg.Store.Floor(ctx, r.o.DID)
	if err != nil {
		return err
	}
	if status.Rev < floor {
		if err := r.doubt(ctx); err != nil {
			return err
		}
		return &network.Error{
			Reason: network.ReasonRevWentBack, Op: "getRepoStatus", Host: r.host,
			Err: fmt.Errorf("%w: rev %s, read before at %s", store.ErrRevWentBack, status.Rev, floor),
		}
	}
	r.rev = status.Rev
	return nil
}

// gone believes the host that the repo is unavailable, if it is the repo's host.
func (r *reader) gone(ctx context.Context, reason network.Reason, text string) error {
	if err := r.doubt(ctx); err != nil {
		return err
	}
	return errGone{reason: reason, detail: text}
}

// doubt looks the identity up, once in an attempt, and fails with errMoved or
// errGone if this host is not, or no longer, the one to ask.
func (r *reader) doubt(ctx context.Context) error {
	if r.fresh {
		return nil
	}
	ident, err := r.w.b.cfg.Network.Lookup(ctx, r.o.DID)
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == network.ClassUnavailable:
		return errGone{reason: failed.Reason, detail: detail(failed)}
	case err != nil:
		return err
	}
	r.fresh, r.ident = true, ident
	if ident.PDS != r.host {
		return errMoved{ident.PDS}
	}
	return nil
}

// collections are those to list of the repo.
func (r *reader) collections(ctx context.Context) ([]syntax.NSID, error) {
	if len(r.w.targets) > 0 {
		return r.w.targets, nil
	}
	has, err := r.w.b.cfg.Network.DescribeRepo(ctx, r.host, r.o.DID)
	if err != nil {
		return nil, err
	}
	r.requests++ // a moment of its own
	return r.wanted(ctx, has)
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
	return slices.Compact(list), nil
}

// pass reads every collection once, from where it was left.
func (r *reader) pass(ctx context.Context) error {
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

// long tells whether the repo is too long to be buffered.
func (r *reader) long() bool { return r.pages >= maxBuffered || r.bytes >= maxBufferedBytes }

// buffered tells whether enough was read to be committed as a step.
func (r *reader) buffered() bool {
	return r.long() || (r.bytes > smallShare && r.w.b.buffered.Load() > maxAllBuffered)
}

// hold notes that bytes are buffered, drop that none are any more.
func (r *reader) hold(bytes int) {
	r.bytes += bytes
	r.held += int64(bytes)
	r.w.b.buffered.Add(int64(bytes))
}

func (r *reader) drop() {
	r.w.b.buffered.Add(-r.held)
	r.pages, r.bytes, r.held = 0, 0, 0
}

// list reads one collection from where it was left to its end.
func (r *reader) list(ctx context.Context, c syntax.NSID) error {
	from := r.at.Read[c]
	s := stretch{did: r.o.DID, seg: store.Segment{Collection: c, Below: from.Below, Partial: from.Partial}, last: from.Below}
	empty := 0
	for cursor, first := from.Cursor, true; ; first = false {
		page, err := r.w.b.cfg.Network.ListRecords(ctx, r.host, r.o.DID, c, cursor)
		if err != nil {
			return r.unlisted(ctx, err)
		}
		if first || len(page.Records) > 0 {
			r.requests++
		}
		if err := r.count(s.add(page.Records)); err != nil {
			return err
		}
		r.full = r.full || len(page.Records) >= fullPage
		if empty++; len(page.Records) > 0 {
			empty = 0
		}
		switch {
		case page.Cursor == "", page.Cursor == cursor && empty > 0:
			return r.end(&s)
		case page.Cursor == cursor:
			return r.broken("the cursor %.100q came twice", cursor)
		case !utf8.ValidString(page.Cursor):
			return r.broken("the cursor %.100q is no text", page.Cursor)
		case empty == maxEmptyPages:
			return r.broken("%d pages of %s in a row are empty, and there is always another cursor", empty, c)
		}
		cursor = page.Cursor
		if !r.buffered() {
			continue
		}
		if !r.steps && r.long() {
			// Long enough to be worth another try: what is buffered is not lost.
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

// end takes a collection that was listed to its end.
func (r *reader) end(s *stretch) error {
	if s.unordered && s.seg.Below != "" {
		return r.broken("a long listing of %s is out of key order", s.seg.Collection)
	}
	s.finish()
	r.segments = append(r.segments, s.seg)
	r.at.Read[s.seg.Collection] = store.ReadUpTo{Done: true, Partial: s.seg.Partial}
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

// unlisted explains a listing that the host refuses: hosts answer alike for
// accounts that are missing and for those that are inactive.
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

// save commits what is buffered as a step, after which a restart goes on. s, if
// not nil, is the collection that is being listed.
func (r *reader) save(ctx context.Context, s *stretch) error {
	segments := r.segments
	if s != nil {
		c := s.seg.Collection
		if s.last == s.seg.Below {
			s.seg.Partial = true // no key was listed by which to tell what is absent
		}
		s.seg.Down = s.last
		segments = append(segments, s.seg)
		r.at.Read[c] = store.ReadUpTo{Cursor: s.cursor, Below: s.last, Partial: s.seg.Partial}
		s.seg = store.Segment{Collection: c, Below: s.last, Partial: s.seg.Partial}
	}
	if err := r.w.b.cfg.Store.Save(ctx, r.w.seq, r.o.DID, r.reading(segments), r.at); err != nil {
		return r.refused(err)
	}
	r.drop()
	r.steps, r.saved, r.segments = true, true, nil
	r.o.Attempts = 0 // it gets on
	return nil
}

// refused turns the store's refusal of something older than it holds into a
// failed attempt.
func (r *reader) refused(err error) error {
	if errors.Is(err, store.ErrDenied) {
		return errGone{reason: network.ReasonDenied}
	}
	if !errors.Is(err, store.ErrRevWentBack) {
		return err
	}
	return &network.Error{Reason: network.ReasonIncomplete, Op: "read repo", Host: r.host, Err: err}
}

func (r *reader) reading(segments []store.Segment) store.Reading {
	return store.Reading{Host: r.o.Host, Rev: r.rev, Source: r.source, Segments: segments}
}

// complete are the collections that were read from end to end, with nothing in
// them that cannot be told.
func (r *reader) complete() (list []syntax.NSID) {
	for c, at := range r.at.Read {
		if at.Done && !at.Partial {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}

// stretch gathers the records of a listing, from one commit to the next.
type stretch struct {
	did       syntax.DID
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
		body, err := record.FromJSON(l.Value, l.CID)
		if err != nil {
			s.seg.Rejected = append(s.seg.Rejected, rkey)
			continue
		}
		s.seg.Records = append(s.seg.Records, store.Listed{RKey: rkey, Body: body})
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

// listed is how many records the last stretch of reading found.
func (r *reader) listed() (n int) {
	for _, s := range r.segments {
		n += len(s.Records)
	}
	return n
}
