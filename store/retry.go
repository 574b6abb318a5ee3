package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
)

// ErrNothingLeft says that a job has nothing that could be tried again.
var ErrNothingLeft = errors.New("nothing is left to do")

// retryListing is the name of the cursor over the repos of the job that is
// carried on: the last DID looked at.
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
		seq := g.tx.Bucket([]byte(jobIDsBucket)).Get(old[:])
		if seq == nil {
			return refuse(fmt.Errorf("job %s: %w", old, ErrNotFound))
		}
		was, err := g.job(binary.BigEndian.Uint64(seq))
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

// DiscoverRetry adds the repos that the job which is carried on has left undone,
// a bounded step at a time. It returns true when all have been looked at.
func (s *Store) DiscoverRetry(ctx context.Context, seq uint64) (bool, error) {
	var done bool
	err := s.wait(ctx, change{op: "discover repos to retry", urgent: true, apply: func(g *group) error {
		done = false
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		at, err := cursors.get(w.cursors, []byte(retryListing))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if done = at.Done || j.RetryOf == 0; done {
			return nil
		}
		from, err := g.workOf(j.RetryOf)
		if errors.Is(err, ErrNotFound) {
			return refuse(fmt.Errorf("the repos of the job to retry are forgotten: %w", ErrNothingLeft))
		}
		if err != nil {
			return err
		}
		var dids []syntax.DID
		cur, looked := from.repos.Cursor(), 0
		k, row := cur.Seek([]byte(at.Cursor))
		for ; k != nil && looked < g.hooks.bound(retryStep); k, row = cur.Next() {
			r, err := workRepos.decode(row)
			if err != nil {
				return fmt.Errorf("repo %s: %w", k, err)
			}
			if r.State != RepoSettled || r.Class == ClassFailed || r.Assumed && distrusted.bucket(g.tx).Get([]byte(r.Host)) != nil {
				dids = append(dids, syntax.DID(k))
			}
			looked++
		}
		at = Cursor{Cursor: string(k), Pages: at.Pages + 1, Done: k == nil}
		if _, err := g.discover(j, w, dids); err != nil {
			return err
		}
		done = at.Done
		return cursors.put(w.cursors, []byte(retryListing), at)
	}})
	if err != nil {
		return false, err
	}
	return done, nil
}
