package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/network/outcome"
	"appview/network/polite"
	"appview/network/repo"
	"appview/network/transport"
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
)

// reader reads one repo.
type reader struct {
	w    *worker
	o    store.Owed
	host network.Host

	began  time.Time // this attempt
	fresh  bool      // its identity was looked up since the host answered last
	ident  network.Identity
	rev    syntax.TID // the latest probe
	back   bool       // its account is active, and was not when the index last heard of it
	source store.Source
	at     store.Position
	steps  bool // part of this pass is committed: at says how far
	saved  bool // some of that in this attempt

	values   values
	proofs   proofs
	segments []store.Segment
	rejects  repo.Rejects        // what stands in no segment, since no record can be addressed by it
	page     network.RecordsPage // that counts against the budget
	pages    int                 // buffered
	bytes    int
	held     int64          // of Backfill.buffered
	listing  bool           // getRepo will not do
	notWhole *network.Error // why, if it has failed
	requests int            // that each saw the repo at a moment of its own, in this pass
	reached  int            // pages had in this attempt, over all passes
	banked   time.Duration  // of the time spent on it: in the position that is stored
	full     bool
	same     bool  // all of it is kept as the index holds it
	ends     []int // records on short pages of this pass that were followed and were the end

	missing   map[syntax.NSID][]syntax.RecordKey // held, and not named by listings that are no proof
	confirmed map[syntax.NSID][]syntax.RecordKey // of these, what the host says is not there
	unclear   string                             // why the pass does not show all that there is
}

// readRepo reads one repo and hands over the result. It reports whether the host gave
// the repo.
func (w *worker) readRepo(ctx context.Context, h hand) (given bool) {
	if w.b.cfg.Store.Denied(h.DID, h.Host) {
		w.settleWithout(ctx, h, h.Owed, outcome.ReasonDenied, false)
		return false
	}
	if !w.b.claims.take(h.DID) {
		w.silence.excuse(h.Host, w.b.now().Add(2*claimedPause))
		h.done(errLater)
		return false
	}
	defer w.b.claims.release(h.DID)
	w.silence.ask(h.Host)
	r := &reader{w: w, o: h.Owed, host: network.Host(h.Host), source: store.SourceListRecords, began: w.b.now()}
	if r.o.Position != nil {
		r.o.Proofs = max(r.o.Proofs, r.o.Position.Proofs)
	}
	exact, err := r.readInTime(transport.WithProgress(ctx, func() { w.healthy(h.Host) }))
	if err != nil {
		r.drop()
	}
	if r.saved {
		h.gotOn()
	}
	var (
		failed *network.Error
		parked *network.Parked
		moved  errMoved
		gone   errGone
	)
	if errors.As(err, &failed) && (r.o.Attempts+1 >= w.b.cfg.Attempts || !failed.Reason.Retryable()) {
		// Before it is given up: is this still the host to ask?
		doubt := r.doubt(ctx)
		if errors.As(doubt, &moved) || errors.As(doubt, &gone) || doubt != nil && failed.Reason.Class() == outcome.ClassUnavailable {
			err = doubt // that the account is not to be had is its own host's word, or nobody's
		}
	}
	switch {
	case err == nil:
		if r.source == store.SourceRepo {
			w.gives.Store(r.host, struct{}{})
		}
		w.healthy(h.Host)
		w.settleRead(ctx, h, r, exact)
	case errors.As(err, &moved) && h.Moved:
		w.missed(ctx, h, r.attempted(), &network.Error{
			Reason: outcome.ReasonIncomplete, Op: "read repo", Host: r.host, Err: fmt.Errorf("%w for the second time", moved),
		})
	case errors.As(err, &moved):
		w.log.DebugContext(ctx, "repo has moved", "did", h.DID, "host", h.Host, "to", moved.to)
		w.rehost(ctx, h, string(moved.to))
	case errors.As(err, &gone):
		if gone.host {
			w.healthy(h.Host)
		}
		r.o.Detail = gone.detail
		w.settleWithout(ctx, h, r.o, gone.reason, gone.inferred)
	case errors.As(err, &failed) && r.lost(failed.Reason):
		err = r.anew(ctx, failed)
		w.missed(ctx, h, r.attempted(), err)
	case errors.As(err, &parked) && w.parks(h.Host, parked) && r.o.Proofs > h.Proofs:
		o := h.Owed
		o.Proofs = r.o.Proofs
		w.postpone(ctx, h, o, parked.Until) // no attempt, and yet something to be counted
	default:
		if failed != nil && !failed.Reason.Retryable() {
			w.healthy(h.Host) // it has answered for good, if not well
		}
		w.missed(ctx, h, r.attempted(), err)
	}
	return err == nil
}

// readInTime is read with a bound on the time that it may take, over all attempts: a
// host that gives a little now and then would never end.
func (r *reader) readInTime(ctx context.Context) (exact bool, err error) {
	timed, cancel := context.WithTimeout(ctx, max(r.w.b.cfg.Reading-r.spentSoFar(), 0))
	defer cancel()
	exact, err = r.read(timed)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		err = &network.Error{
			Reason: outcome.ReasonTooLarge, Op: "read repo", Host: r.host,
			Err: fmt.Errorf("not read within %s", r.w.b.cfg.Reading),
		}
	}
	return exact, err
}

// spentSoFar is how long it has been read.
func (r *reader) spentSoFar() time.Duration {
	spent := r.w.b.now().Sub(r.began) + r.o.Spent
	if r.o.Position != nil {
		spent += r.o.Position.Spent
	}
	return spent
}

// attempted is the row of a repo after an attempt that failed: it says how long that
// took, and how far it came, since the last step.
func (r *reader) attempted() store.Owed {
	o, stored := r.o, r.banked
	if stored == 0 && o.Position != nil {
		stored = o.Position.Spent
	}
	o.Spent = max(r.spentSoFar()-stored, 0)
	o.Reached = max(o.Reached, r.reached)
	return o
}

// turned notes a page of a listing. The first says nothing of what is to come, and what
// an earlier attempt had is nothing new.
func (r *reader) turned() {
	if r.reached++; r.reached > max(1, r.o.Reached) {
		r.w.healthy(r.o.Host)
	}
}

// lost tells whether a repo read in steps cannot be gone on with: the host does
// not take its own cursor any more, or the listing has lost its order.
func (r *reader) lost(reason outcome.Reason) bool {
	return r.steps && !r.saved && (reason == outcome.ReasonHTTP4xx || reason == outcome.ReasonIncomplete)
}

// anew forgets how far the repo was read, so that the next attempt begins at its
// beginning.
func (r *reader) anew(ctx context.Context, failed *network.Error) error {
	if err := r.restart(ctx); err != nil {
		return err
	}
	failed.Reason = outcome.ReasonIncomplete
	return failed
}

// read reads the repo, in one piece or by listing it, as often as it takes to see
// it at one rev. It reports whether it did.
func (r *reader) read(ctx context.Context) (exact bool, err error) {
	if err := r.probe(ctx); err != nil {
		if unprobed(err) {
			return r.readUnprobed(ctx, err)
		}
		if r.o.Position != nil || !r.spent(err, r.w.b.cfg.Network.RepoParkedUntil) {
			return false, err
		}
		// getRepo has a quota of its own, and its commit says what the probe would.
		if done, failed := r.whole(ctx); done || failed != nil {
			return done, failed
		}
		if _, gives := r.w.gives.Load(r.host); gives && r.notWhole != nil && r.notWhole.Reason.Retryable() && parkedAs(err, polite.WhyDown) {
			// The host gives others, and lists none: that it does not give this one is the
			// repo's failure. As the host's it would hold up all that stand behind it.
			return false, r.notWhole
		}
		return false, err
	}
	if err := r.resume(ctx); err != nil {
		return false, err
	}
	if err := r.keep(ctx); err != nil {
		return false, err
	}
	begun := r.o.Position != nil && r.o.Position.Whole
	for {
		if !r.steps && (r.many() || begun) {
			if done, err := r.whole(ctx); done || err != nil {
				return done, err
			}
		}
		err := r.pass(ctx)
		if errors.Is(err, errWhole) {
			return true, nil
		}
		if !r.steps && (r.hopeless(err) || r.spent(err, r.w.b.cfg.Network.RepoParkedUntil)) {
			if done, err := r.whole(ctx); done || err != nil {
				return done, err
			}
		}
		if err == nil {
			err = r.proveRest(ctx, r.segments)
		}
		if err != nil {
			return false, err
		}
		if why := r.incomplete(true); why != "" && r.mayYetGive() {
			return false, &network.Error{Reason: outcome.ReasonIncomplete, Op: "listRecords", Host: r.host, Err: errors.New(why)}
		}
		// One short page that held everything was one moment, not before the probe.
		if !r.steps && r.requests <= 1 && !r.full && r.incomplete(true) == "" {
			return true, nil
		}
		before := r.rev
		if err := r.confirm(ctx); err != nil {
			return false, err
		}
		if err := r.probe(ctx); err != nil {
			return false, err
		}
		oneRev := r.rev == r.at.First
		switch {
		case oneRev && r.incomplete(true) == "":
			return true, nil
		case r.at.Pass+1 >= maxPasses:
			if r.rev, r.unclear = before, r.incomplete(oneRev); !oneRev {
				r.confirmed = nil
			}
			return false, nil
		}
		if err := r.restart(ctx); err != nil {
			return false, err
		}
	}
}

// many tells whether one request for the whole repo costs less than to list what is to
// be read of it.
func (r *reader) many() bool {
	if len(r.w.targets) == 0 {
		return !r.same
	}
	return len(r.w.targets)-len(r.at.Read) > maxListed
}

// parkedAs tells whether a request was kept back, and for that.
func parkedAs(err error, why string) bool {
	var parked *network.Parked
	return errors.As(err, &parked) && parked.Why == why
}

// resume takes up a repo where it was left. One that was being read in one piece,
// that had an end assumed that must not be, or whose account has ended meanwhile, is
// read anew: what of it is in the index already does not change.
func (r *reader) resume(ctx context.Context) error {
	r.begin(store.Position{First: r.rev})
	if r.o.Position == nil {
		return nil
	}
	r.steps = true
	lapsed, err := r.lapsed(ctx, *r.o.Position)
	if err != nil {
		return err
	}
	if r.o.Position.Whole || lapsed {
		r.at.Pass, r.at.Spent = r.o.Position.Pass, r.o.Position.Spent+r.o.Spent
		r.banked = r.at.Spent
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
	r.begin(store.Position{First: r.rev, Pass: r.at.Pass + 1, Spent: r.spentSoFar()})
	if !r.steps {
		return nil
	}
	r.banked = r.at.Spent
	return r.w.b.cfg.Store.Restart(ctx, r.w.seq, r.o.Host, r.o.DID, r.at)
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
	r.page.Close()
	r.pages, r.bytes, r.held = 0, 0, 0
}

// save commits what is buffered as a step, after which a restart goes on. s, if
// not nil, is the collection that is being listed. It returns how much was not listed
// in earlier steps.
func (r *reader) save(ctx context.Context, s *stretch) (fresh int, err error) {
	segments := r.segments
	if s != nil {
		segments = append(segments, s.sorted())
	}
	if err := r.proveRest(ctx, segments); err != nil {
		return 0, err
	}
	if s != nil {
		s.seg = segments[len(segments)-1]
		r.at.Read[s.seg.Collection] = store.ReadUpTo{Cursor: s.cursor, Last: s.last, Order: s.order, Partial: s.partial}
		s.cut()
	}
	r.at.Spent, r.at.Proofs = r.spentSoFar(), r.o.Proofs
	if fresh, err = r.w.b.cfg.Store.Save(ctx, r.w.seq, r.o.DID, r.reading(segments), r.at); err != nil {
		return 0, r.refused(err)
	}
	r.drop()
	r.steps, r.saved, r.segments, r.banked = true, true, nil, r.at.Spent
	r.o.Attempts, r.o.Reached, r.reached = 0, 0, 0 // it gets on
	r.w.healthy(r.o.Host)
	return fresh, nil
}

// refused turns the store's refusal of something older than it holds, or of what
// goes on where nothing is any more, into a failed attempt.
func (r *reader) refused(err error) error {
	if errors.Is(err, store.ErrDenied) {
		return errGone{reason: outcome.ReasonDenied}
	}
	if !errors.Is(err, store.ErrRevWentBack) && !errors.Is(err, store.ErrUndone) {
		return err
	}
	return &network.Error{Reason: outcome.ReasonIncomplete, Op: "read repo", Host: r.host, Err: err}
}

func (r *reader) reading(segments []store.Segment) store.Reading {
	return store.Reading{Host: r.o.Host, Rev: r.rev, Source: r.source, Segments: segments}
}

// listed is how many records the last stretch of reading found.
func (r *reader) listed() (n int) {
	for _, s := range r.segments {
		n += len(s.Records)
	}
	return n
}
