package read

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/repo"
	"appview/store/index"
	"appview/store/jobs"
)

// maxPasses is how often a repo that changes while it is read is read, before
// what was read is taken as it is.
const maxPasses = 3

// Reader reads the repos of one job.
type Reader struct {
	cfg Config

	givesWhole sync.Map // host, if it has given a repo in one piece
	refuses    sync.Map // host, if it has not given that of an account that it says is not active
	longestEnd sync.Map // host: how long a page may be that is taken for the end
}

// New returns a reader.
func New(cfg Config) *Reader { return &Reader{cfg: cfg} }

// Result is what one attempt at a repo came to.
type Result struct {
	// Err is nil if the repo was read. A *MovedError or a *GoneError says that it is not
	// to be had here; a *network.Error is an attempt that failed; anything else is none.
	Err        error
	Settlement jobs.Settlement // of a repo that was read
	Records    int             // in the part of it that is not committed yet
	Owed       jobs.Owed       // the row of a repo that was not read, as the attempt leaves it
	Steps      int             // committed meanwhile
	Answered   bool            // the host has given the repo, or an answer that is final: a sign of health

	release func()
}

// Release gives back what the records of a settlement take of the memory that all readers
// share. It is to be called when the settlement is committed, or will not be.
func (r Result) Release() {
	if r.release != nil {
		r.release()
	}
}

// reading is one attempt at a repo.
type reading struct {
	*Reader
	state

	owed    jobs.Owed
	host    network.Host
	began   time.Time
	illegal error // the first move that is not in the table

	ident           network.Identity
	identityCurrent bool            // the identity was looked up since the host answered last
	rev             syntax.TID      // the latest probe
	known           *index.Repo     // what the index held of the repo then
	assumed         jobs.ShortPages // Unprobed: the account is taken for active since its host gave the repo
	source          index.Source
	pass            pass

	segments []index.Segment     // read and not committed
	rejects  repo.Rejects        // what stands in no segment, since no record can be addressed by it
	page     network.RecordsPage // that counts against the budget
	buffer   buffer
	steps    int           // committed in this attempt
	reached  int           // pages had in this attempt, over all passes
	banked   time.Duration // of the time spent on it: in the position that is stored

	wholeRefused error // why getRepo will not do, once it was tried
	values       values
	proofs       proofs
	absent       absences
}

// Read reads one repo, which the caller has claimed.
func (rd *Reader) Read(ctx context.Context, o jobs.Owed) Result {
	r := &reading{Reader: rd, owed: o, host: network.Host(o.Host), source: index.SourceListRecords, began: rd.cfg.Now()}
	if o.Position != nil {
		r.owed.Proofs = max(o.Proofs, o.Position.Proofs)
	}
	if err := r.readInTime(ctx); err != nil || r.illegal != nil {
		return r.fail(ctx, err)
	}
	if r.source == index.SourceRepo {
		rd.givesWhole.Store(r.host, struct{}{})
	}
	return Result{Settlement: r.settlement(), Records: r.countBuffered(), Steps: r.steps, Answered: true, release: r.releaseBuffer}
}

// fail is the result of an attempt that has failed.
func (r *reading) fail(ctx context.Context, err error) Result {
	r.releaseBuffer()
	var (
		failed *network.Error
		moved  *MovedError
		gone   *GoneError
	)
	if errors.As(err, &failed) && (r.isLastAttempt() || !failed.Reason.Retryable()) {
		// Before it is given up: is this still the host to ask?
		doubt := r.confirmHost(ctx)
		if errors.As(doubt, &moved) || errors.As(doubt, &gone) || doubt != nil && failed.Reason.Class() == outcome.ClassUnavailable {
			err = doubt // that the account is not to be had is its own host's word, or nobody's
		}
	}
	answered := false
	switch {
	case errors.As(err, &moved):
	case errors.As(err, &gone):
		answered, r.owed.Detail = gone.By != "", gone.Detail
	case errors.As(err, &failed) && r.isPositionRefused(failed.Reason):
		err = r.dropPosition(ctx, failed)
	default:
		answered = failed != nil && !failed.Reason.Retryable() // for good, if not well
	}
	if r.illegal != nil {
		err = r.illegal
	}
	return Result{Err: err, Owed: r.afterAttempt(), Steps: r.steps, Answered: answered}
}

// readInTime is run with a bound on the time that it may take, over all attempts: a
// host that gives a little now and then would never end.
func (r *reading) readInTime(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, max(r.cfg.Limit-r.elapsed(), 0))
	defer cancel()
	err := r.run(timed)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		err = &network.Error{
			Reason: outcome.ReasonTooLarge, Op: "read repo", Host: r.host,
			Err: fmt.Errorf("not read within %s", r.cfg.Limit),
		}
	}
	return err
}

// run reads the repo, in one piece or by listing it, as often as it takes to see it at
// one rev, or until its last pass.
func (r *reading) run(ctx context.Context) error {
	if may, err := r.mayAssumeActive(ctx); err != nil {
		return err
	} else if may {
		if err := r.readUnasked(ctx); err != nil || r.isFinal() {
			return err
		}
	}
	if err := r.probe(ctx); err != nil {
		return r.readWithoutProbe(ctx, r.testRefusal(ctx, err))
	}
	if failed, ok := errors.AsType[*network.Error](r.wholeRefused); ok && failed.Reason == outcome.ReasonNotFound {
		r.wholeRefused = errNotGiven // the host has just said that it is there
	}
	if err := r.resumePosition(ctx); err != nil {
		return err
	}
	if err := r.matchIndex(ctx); err != nil {
		return err
	}
	for {
		if err := r.readPass(ctx); err != nil || r.isFinal() {
			return err
		}
		if err := r.concludePass(ctx); err != nil || r.isFinal() {
			return err
		}
		if err := r.restart(ctx); err != nil {
			return err
		}
	}
}

// readPass reads the repo once: in one piece where that costs the host less, or where
// listing fails; else by listing it.
func (r *reading) readPass(ctx context.Context) error {
	begunWhole := r.owed.Position != nil && r.owed.Position.Whole
	if r.mayTurnWhole() && (r.isWholeCheaper() || begunWhole) {
		if err := r.readWhole(ctx); err != nil || r.how == Whole {
			return err
		}
	}
	err := r.listAll(ctx)
	if r.how == Whole {
		return err
	}
	if r.mayTurnWhole() && (r.isListingHopeless(err) || r.isQuotaSpent(err, r.cfg.Network.RepoParkedUntil)) {
		if failed := r.readWhole(ctx); failed != nil || r.how == Whole {
			return failed
		}
	}
	if err != nil {
		return err
	}
	return r.proveRest(ctx, r.segments)
}

// isWholeCheaper reports whether one request for the whole repo costs less than to list
// what is to be read of it.
func (r *reading) isWholeCheaper() bool {
	if len(r.cfg.Targets) == 0 {
		return r.how != Unchanged
	}
	return len(r.cfg.Targets)-len(r.pass.read) > MaxListed
}

// isLastAttempt reports whether the repo is given up if this attempt fails.
func (r *reading) isLastAttempt() bool { return r.owed.Attempts+1 >= r.cfg.Attempts }

// elapsed is how long the repo has been read, over all attempts.
func (r *reading) elapsed() time.Duration {
	spent := r.cfg.Now().Sub(r.began) + r.owed.Spent
	if r.owed.Position != nil {
		spent += r.owed.Position.Spent
	}
	return spent
}

// afterAttempt is the row of a repo after an attempt that failed: it says how long that
// took, and how far it came, since the last step.
func (r *reading) afterAttempt() jobs.Owed {
	o, stored := r.owed, r.banked
	if stored == 0 && o.Position != nil {
		stored = o.Position.Spent
	}
	o.Spent = max(r.elapsed()-stored, 0)
	o.Reached = max(o.Reached, r.reached)
	return o
}
