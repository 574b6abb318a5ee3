package read

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/repo"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

// Extent is how much of a collection a pass has read.
type Extent uint8

// The extents.
const (
	Open       Extent = iota // its listing is under way
	Complete                 // all of it, to the end of its listing or of the whole repo
	EndAssumed               // all up to a short page that was taken for the end without a look
	Held                     // nothing: the index holds it as it is at the rev of the pass
	Broken                   // all up to where its listing cannot be followed
)

// collection is how far a pass has read one collection.
type collection struct {
	Extent

	broken    string           // why the listing cannot be followed
	ambiguous bool             // some entries may stand for any record: none is known to be absent
	order     jobs.Order       // of the keys so far
	cursor    string           // where an open listing goes on
	last      syntax.RecordKey // the last key that was new
}

// isReadToEnd reports whether a collection was read to its end with nothing in it that may
// stand for any record.
func (c collection) isReadToEnd() bool {
	return (c.Extent == Complete || c.Extent == EndAssumed || c.Extent == Held) && !c.ambiguous
}

// provesAbsence reports whether the order of a listing that has come to its end shows
// which records are not there.
func (c collection) provesAbsence() bool { return c.order != jobs.OrderNone }

// row is the collection as the store keeps it.
func (c collection) row() jobs.ReadUpTo {
	return jobs.ReadUpTo{
		Cursor: c.cursor, Last: c.last, Order: c.order, Partial: c.ambiguous, Broken: c.broken,
		Done: c.Extent != Open, Assumed: c.Extent == EndAssumed, Kept: c.Extent == Held,
	}
}

// collectionOf is the collection of a row.
func collectionOf(row jobs.ReadUpTo) collection {
	c := collection{broken: row.Broken, ambiguous: row.Partial, order: row.Order, cursor: row.Cursor, last: row.Last}
	switch {
	case !row.Done:
	case row.Broken != "":
		c.Extent = Broken
	case row.Kept:
		c.Extent = Held
	case row.Assumed:
		c.Extent = EndAssumed
	default:
		c.Extent = Complete
	}
	return c
}

// pass is one reading of the repo from its beginning.
type pass struct {
	first       syntax.TID // the rev when it began
	number      int        // passes before it
	pages       int        // of its listings
	bytes       int64
	spent       time.Duration // on the repo when it was last committed
	pageRefuted bool          // a short page of it had more behind it
	shortEnds   []int         // records on its short pages that were followed and were the end
	read        map[syntax.NSID]collection
}

// passOf is the pass of a position that is stored.
func passOf(at jobs.Position) pass {
	p := pass{first: at.First, number: at.Pass, pages: at.Pages, bytes: at.Bytes, spent: at.Spent, pageRefuted: at.More}
	p.read = make(map[syntax.NSID]collection, len(at.Read))
	for c, row := range at.Read {
		p.read[c] = collectionOf(row)
	}
	return p
}

// position is how far the repo is read, as the store keeps it.
func (r *reading) position() jobs.Position {
	at := jobs.Position{
		First: r.pass.first, Pass: r.pass.number, Pages: r.pass.pages, Bytes: r.pass.bytes, Spent: r.pass.spent,
		More: r.pass.pageRefuted, Proofs: r.owed.Proofs, Whole: r.how == Whole,
	}
	at.Read = make(map[syntax.NSID]jobs.ReadUpTo, len(r.pass.read))
	for c, read := range r.pass.read {
		at.Read[c] = read.row()
	}
	return at
}

// with are the collections of the pass that have one of some extents.
func (p pass) with(extents ...Extent) (list []syntax.NSID) {
	for c, read := range p.read {
		if slices.Contains(extents, read.Extent) {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}

// setPass replaces the pass by one that has read nothing.
func (r *reading) setPass(p pass) {
	p.read = map[syntax.NSID]collection{}
	r.pass = p
	r.releaseBuffer()
	r.segments, r.rejects = nil, repo.Rejects{}
	r.values.unproved = nil
	r.absent = absences{}
}

// resumePosition takes up a repo where it was left. One that was being read in one piece,
// that had an end assumed that must not be, or whose account has ended meanwhile, is
// read anew: what of it is in the index already does not change.
func (r *reading) resumePosition(ctx context.Context) error {
	r.setPass(pass{first: r.rev})
	r.move(begin)
	at := r.owed.Position
	if at == nil {
		return nil
	}
	left := passOf(*at)
	stale, err := r.isPositionStale(ctx, *at, left)
	if err != nil {
		return err
	}
	if at.Whole || stale {
		r.pass.number, r.pass.spent = at.Pass, at.Spent+r.owed.Spent
		return r.storeRestart(ctx, r.position())
	}
	r.pass = left
	r.move(resume)
	return nil
}

// isPositionStale reports whether an end was assumed in an earlier step that must not be, or
// whether what earlier steps brought may be deleted, as when the account was denied, or
// what they left as the index holds it has changed, or it is not known what they have listed.
func (r *reading) isPositionStale(ctx context.Context, at jobs.Position, left pass) (bool, error) {
	repo, err := r.cfg.Store.Repo(ctx, r.owed.DID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return false, err
	case !repo.Active():
		return true, nil
	}
	if len(left.read) > 0 && !at.Marked {
		return true, nil
	}
	if same, err := r.isStillHeld(ctx, left); err != nil || !same {
		return true, err
	}
	for _, c := range left.with(EndAssumed) {
		if may, err := r.cfg.Store.MayEnd(ctx, r.cfg.Job, r.owed.Host, r.owed.DID, index.Segment{Collection: c}); err != nil || !may {
			return true, err
		}
	}
	return false, nil
}

// restart begins a new pass at the rev just probed.
func (r *reading) restart(ctx context.Context) error {
	r.setPass(pass{first: r.rev, number: r.pass.number + 1, spent: r.elapsed()})
	r.move(begin)
	if r.how != Stepping {
		return nil
	}
	return r.storeRestart(ctx, r.position())
}

// storeRestart has the stored position forget what was read.
func (r *reading) storeRestart(ctx context.Context, at jobs.Position) error {
	r.banked = at.Spent
	return r.cfg.Store.Restart(ctx, r.cfg.Job, r.owed.Host, r.owed.DID, at)
}

// isPositionRefused reports whether a repo read in steps cannot be gone on with: the host
// does not take its own cursor any more, or the listing has lost its order.
func (r *reading) isPositionRefused(reason outcome.Reason) bool {
	return r.how == Stepping && r.steps == 0 && (reason == outcome.ReasonHTTP4xx || reason == outcome.ReasonIncomplete)
}

// dropPosition forgets how far the repo was read, so that the next attempt begins at its
// beginning.
func (r *reading) dropPosition(ctx context.Context, failed *network.Error) error {
	if err := r.restart(ctx); err != nil {
		return err
	}
	failed.Reason = outcome.ReasonIncomplete
	return failed
}

// commitStep commits what is buffered, after which a restart goes on. s, if
// not nil, is the collection that is being listed. It returns how much was not listed
// in earlier steps.
func (r *reading) commitStep(ctx context.Context, s *segment) (fresh int, err error) {
	segments := r.segments
	if s != nil {
		segments = append(segments, s.inOrder())
	}
	if err := r.proveRest(ctx, segments); err != nil {
		return 0, err
	}
	if s != nil {
		s.seg = segments[len(segments)-1]
		r.pass.read[s.seg.Collection] = collection{cursor: s.cursor, last: s.last, order: s.order, ambiguous: s.ambiguous}
		s.beginNext()
	}
	r.pass.spent = r.elapsed()
	if fresh, err = r.cfg.Store.Save(ctx, r.cfg.Job, r.owed.DID, r.part(segments), r.position()); err != nil {
		return 0, r.explainStore(err)
	}
	r.releaseBuffer()
	r.move(commit)
	r.steps, r.segments, r.banked = r.steps+1, nil, r.pass.spent
	r.owed.Attempts, r.owed.Reached, r.reached = 0, 0, 0 // it gets on
	r.cfg.Progress(r.owed.Host)
	return fresh, nil
}

// explainStore turns the store's refusal of something older than it holds, of what goes on
// where nothing is any more, or of what is too much, into a failed attempt.
func (r *reading) explainStore(err error) error {
	if errors.Is(err, index.ErrDenied) {
		return &GoneError{Reason: outcome.ReasonDenied}
	}
	if errors.Is(err, index.ErrAccountFull) {
		return &network.Error{Reason: outcome.ReasonTooLarge, Op: "read repo", Host: r.host, Err: err}
	}
	if !errors.Is(err, index.ErrRevWentBack) && !errors.Is(err, index.ErrUndone) {
		return err
	}
	return &network.Error{Reason: outcome.ReasonIncomplete, Op: "read repo", Host: r.host, Err: err}
}

// buffer is what a reading holds in memory.
type buffer struct {
	pages int
	bytes int
}

const (
	// MaxBuffered and maxBufferedBytes bound what is read of a repo before it is
	// committed as a step.
	MaxBuffered      = 5 // pages
	maxBufferedBytes = 2 << 20
	// maxAllBuffered bounds it over all repos that are being read: past it, a repo
	// with more than its small share is committed as a step earlier.
	maxAllBuffered = 64 << 20
	smallShare     = 64 << 10
)

// isFull reports whether the repo is too long to be buffered.
func (b buffer) isFull() bool { return b.pages >= MaxBuffered || b.bytes >= maxBufferedBytes }

// mustCommit reports whether enough was read to be committed as a step.
func (r *reading) mustCommit() bool {
	return r.buffer.isFull() || (r.buffer.bytes > smallShare && r.cfg.Buffered.Load() > maxAllBuffered)
}

// addBuffer counts bytes that are buffered.
func (r *reading) addBuffer(bytes int) {
	r.buffer.bytes += bytes
	r.cfg.Buffered.Add(int64(bytes))
}

// releaseBuffer gives back what is buffered.
func (r *reading) releaseBuffer() {
	r.cfg.Buffered.Add(-int64(r.buffer.bytes))
	r.page.Close()
	r.buffer = buffer{}
}

// countBuffered is how many records are buffered.
func (r *reading) countBuffered() (n int) {
	for _, s := range r.segments {
		n += len(s.Records)
	}
	return n
}
