package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
)

// ErrNothingLeft says that a job has nothing that could be tried again.
var ErrNothingLeft = errors.New("nothing is left to do")

// retryListing is the name of the cursor over the repos of the jobs that are carried
// on: a retryPlace.
const retryListing = "\x00retry"

// retryStep bounds the repos looked at in one transaction of DiscoverRetry.
const retryStep = 5_000

// RetryJob stores a new job that carries a final one on: its listings go on where
// they were left, and its repos are read that were not settled, were given up, or
// had their end assumed at a host that is not trusted any more. It fails with
// ErrMove if the job is not final, and with ErrNothingLeft if it has left nothing
// undone or is too long ago.
func (s *Store) RetryJob(ctx context.Context, old, id uuid.UUID) (Job, error) {
	var job Job
	err := s.do(ctx, "retry job", func(g *group) error {
		was, err := g.jobByID(old)
		if err != nil {
			return err
		}
		if !was.Status.Final() {
			return refuse(&MoveError{Job: old, Status: was.Status})
		}
		left := !was.Done() || was.DiscoveryError != "" || was.Failed > 0
		from, err := g.workOf(was.Seq)
		forgotten := errors.Is(err, ErrNotFound)
		if err == nil && !left {
			var doubted []string
			doubted, err = from.doubted(g.tx)
			left = len(doubted) > 0
		}
		switch {
		case err != nil && !forgotten:
			return err
		case !left:
			return refuse(fmt.Errorf("job %s has read every repo: %w", old, ErrNothingLeft))
		case forgotten:
			return refuse(fmt.Errorf("job %s is too long ago, its repos are forgotten: %w", old, ErrNothingLeft))
		}
		job = Job{
			ID: id, Request: was.Request, Targets: was.Targets, Origin: OriginRequest,
			RetryOf: was.Seq, First: was.first(), Since: was.since(),
		}
		to, err := g.create(&job)
		if err != nil {
			return err
		}
		// Only listings: each is one row for a collection.
		if err := from.cursors.ForEach(func(k, row []byte) error {
			if string(k) == retryListing {
				return nil
			}
			return to.cursors.Put(k, row)
		}); err != nil {
			return err
		}
		return g.note(ctx, Event{Action: ActRetryJob, Target: id.String(), Detail: "carries on " + old.String()})
	})
	if err != nil {
		return Job{}, err
	}
	return job, nil
}

// retryPlace is a place among the repos that are carried on: the job whose they are,
// by its number, and the DID from which to go on.
type retryPlace struct {
	of  uint64
	did string
}

func (p retryPlace) String() string { return strconv.FormatUint(p.of, 10) + " " + p.did }

// undone is from where on a job has not looked yet at what it carries on, if there is
// anything.
func (w *workBuckets) undone(j *Job) (p retryPlace, is bool, err error) {
	at, err := cursors.get(w.cursors, []byte(retryListing))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return p, false, err
	}
	if at.Done || j.RetryOf == 0 {
		return p, false, nil
	}
	number, did, full := strings.Cut(at.Cursor, " ")
	if !full { // at the beginning, or as it was written once
		return retryPlace{of: j.RetryOf, did: at.Cursor}, true, nil
	}
	of, err := strconv.ParseUint(number, 10, 64)
	if err != nil || of >= j.Seq {
		return p, false, fmt.Errorf("%w: job %s carries on %q", errRow, j.ID, at.Cursor)
	}
	return retryPlace{of, did}, true, nil
}

// needed are the jobs at whose repos an unfinished job has still to look, since it
// carries them on.
func (g *group) needed() (map[uint64]bool, error) {
	list, err := g.unfinished()
	if err != nil {
		return nil, err
	}
	needed := map[uint64]bool{}
	for _, j := range list {
		for at := &j; at != nil; {
			if at, err = g.carriedOn(at); err != nil {
				return nil, err
			}
			if at != nil {
				needed[at.Seq] = true
			}
		}
	}
	return needed, nil
}

// carriedOn is the job at whose repos a job has to look next, or would have had to, to
// carry them on. It is nil if there is none, or if its repos are forgotten.
func (g *group) carriedOn(j *Job) (*Job, error) {
	w, err := g.workOf(j.Seq)
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	p, is, err := w.undone(j)
	if err != nil || !is {
		return nil, err
	}
	if _, err := g.workOf(p.of); errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // there is none
	}
	return g.job(p.of)
}

// DiscoverRetry adds the repos that the job which is carried on has left undone, and
// those that it had not taken over itself from the one before it, a bounded step at a
// time. It returns true when all have been looked at.
func (s *Store) DiscoverRetry(ctx context.Context, seq uint64) (bool, error) {
	var done bool
	err := s.wait(ctx, change{op: "discover repos to retry", urgent: true, apply: func(g *group) error {
		done = false
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		at, left, err := w.undone(j)
		if done = !left; err != nil || done {
			return err
		}
		from, err := g.workOf(at.of)
		if errors.Is(err, ErrNotFound) {
			return refuse(fmt.Errorf("the repos of the job to retry are forgotten: %w", ErrNothingLeft))
		}
		if err != nil {
			return err
		}
		var dids []syntax.DID
		cur, looked := from.repos.Cursor(), 0
		k, row := cur.Seek([]byte(at.did))
		for ; k != nil && looked < g.hooks.bound(retryStep); k, row = cur.Next() {
			r, err := workRepos.decode(k, row)
			if err != nil {
				return fmt.Errorf("repo %s: %w", k, err)
			}
			if r.State != RepoSettled || r.Class == ClassFailed || r.Assumed && distrusted.bucket(g.tx).Get([]byte(r.Host)) != nil {
				dids = append(dids, syntax.DID(k))
			}
			looked++
		}
		if at.did = string(k); k == nil {
			was, err := g.job(at.of)
			if err != nil {
				return err
			}
			if at, left, err = from.undone(was); err != nil {
				return err
			}
		}
		if _, err := g.discover(j, w, dids); err != nil {
			return err
		}
		c := Cursor{Done: !left}
		if left {
			c.Cursor = at.String()
		}
		done = c.Done
		return cursors.put(w.cursors, []byte(retryListing), c)
	}})
	if err != nil {
		return false, err
	}
	return done, nil
}
