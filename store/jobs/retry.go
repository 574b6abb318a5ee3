package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/kv"
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
func (s *Jobs) RetryJob(ctx context.Context, old, id uuid.UUID) (Job, error) {
	if err := s.replied(ctx); err != nil { // the old job may be forgotten by now
		return Job{}, err
	}
	doubtful, err := s.doubtsOf(ctx, old)
	if err != nil {
		return Job{}, err
	}
	job, _, err := s.makeOnce(ctx, "retry job", func(g *group) (*Job, bool, error) {
		was, err := g.jobByID(old)
		if err != nil {
			return nil, false, err
		}
		from, err := g.left(was, doubtful)
		if err != nil {
			return nil, false, err
		}
		job := Job{
			ID: id, Request: was.Request, Targets: was.Targets, Origin: api.OriginRequest,
			RetryOf: was.Seq, First: was.first(), Since: was.since(),
		}
		to, err := g.create(&job)
		if err != nil {
			return nil, false, err
		}
		// Only listings: each is one row for a collection.
		if err := from.cursors.ForEach(func(k, row []byte) error {
			if string(k) == retryListing {
				return nil
			}
			return to.cursors.Put(k, row)
		}); err != nil {
			return nil, false, err
		}
		return &job, true, admin.Note(ctx, g.tx, admin.Event{Action: api.ActRetryJob, Target: id.String(), Detail: "carries on " + old.String()})
	})
	if err != nil {
		return Job{}, err
	}
	return *job, nil
}

// left is the work of a final job that has left something undone, or in doubt. Of any
// other it refuses to have it carried on.
func (g *group) left(was *Job, doubtful bool) (*workBuckets, error) {
	if !was.Status.Final() {
		return nil, kv.Refuse(&MoveError{Job: was.ID, Status: was.Status})
	}
	if i := slices.IndexFunc(was.Targets, index.Misspelt); i >= 0 {
		wrong := was.Targets[i]
		return nil, kv.Refuse(fmt.Errorf("job %s is over %s, which no repo may have: create a job over %s: %w", was.ID, wrong, wrong.Normalize(), ErrNothingLeft))
	}
	left := !was.Done() || was.DiscoveryError != "" || was.Failed > 0 || doubtful
	work, err := g.workOf(was.Seq)
	forgotten := errors.Is(err, kv.ErrNotFound)
	switch {
	case err != nil && !forgotten:
		return nil, err
	case !left:
		return nil, kv.Refuse(fmt.Errorf("job %s has read every repo: %w", was.ID, ErrNothingLeft))
	case forgotten:
		return nil, kv.Refuse(fmt.Errorf("job %s is too long ago, its repos are forgotten: %w", was.ID, ErrNothingLeft))
	}
	return work, nil
}

// doubtsOf reports whether a job, or one that it carries on, has settled a repo whose
// end was assumed and must not be, and that none of them has found since.
func (s *Jobs) doubtsOf(ctx context.Context, id uuid.UUID) (bool, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (found bool, err error) {
		j, err := jobByID(tx, id)
		if err != nil {
			return false, err
		}
		g := &group{tx: tx, work: map[uint64]*workBuckets{}} // to read only
		list, err := g.carriedOn(&Job{RetryOf: j.Seq})
		for i, w := range list {
			if err != nil || found {
				return found, err
			}
			found, err = w.doubtful(tx, list[:i])
		}
		return found, err
	})
}

// doubtful reports whether there is such a repo that none of the newer jobs has found.
func (w *workBuckets) doubtful(tx *kv.Tx, newer []*workBuckets) (bool, error) {
	doubted, err := w.doubted(tx)
	if err != nil || len(doubted) == 0 {
		return false, err
	}
	c := w.repos.Cursor()
	for k, row := c.First(); k != nil; k, row = c.Next() {
		r, err := workRepos.Decode(k, row)
		if err != nil {
			return false, fmt.Errorf("repo %s: %w", k, err)
		}
		known := func(n *workBuckets) bool { return n.repos.Get(k) != nil }
		if r.Assumed && slices.Contains(doubted, r.Host) && !slices.ContainsFunc(newer, known) {
			return true, nil
		}
	}
	return false, nil
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
	at, err := cursors.Get(w.cursors, []byte(retryListing))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
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
		return p, false, fmt.Errorf("%w: job %s carries on %q", kv.ErrRow, j.ID, at.Cursor)
	}
	return retryPlace{of, did}, true, nil
}

// needed are the jobs that an unfinished job carries on and has still to look at:
// for what they have left undone, and, as long as it discovers repos, for what they
// have read.
func (g *group) needed() (map[uint64]bool, error) {
	list, err := g.unfinished()
	if err != nil {
		return nil, err
	}
	needed := map[uint64]bool{}
	for _, j := range list {
		if j.Discovered {
			continue
		}
		for seq := j.RetryOf; seq != 0; {
			needed[seq] = true
			if seq, err = g.retryOf(seq); err != nil {
				return nil, err
			}
		}
	}
	return needed, nil
}

// retryOf is the job that a job carries on, 0 if there is none, or if the job is
// forgotten.
func (g *group) retryOf(seq uint64) (uint64, error) {
	if j := g.jobs[seq]; j != nil {
		return j.RetryOf, nil
	}
	j, err := jobs.Get(jobs.Bucket(g.tx), kv.NumberKey(seq))
	if errors.Is(err, kv.ErrNotFound) {
		return 0, nil
	}
	return j.RetryOf, err
}

// before is where a job goes on that has looked at all repos of one that it carries
// on: at what that one had not looked at yet itself, or at the next one in which ends
// were assumed that must not be.
func (g *group) before(seq uint64, w *workBuckets) (p retryPlace, is bool, err error) {
	j, err := g.job(seq)
	if err != nil {
		return p, false, err
	}
	if p, is, err = w.undone(j); err != nil || is {
		return p, is, err
	}
	for seq, err = g.retryOf(seq); seq != 0 && err == nil; seq, err = g.retryOf(seq) {
		w, err := g.workOf(seq)
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return p, false, err
		}
		doubted, err := w.doubted(g.tx)
		if err != nil || len(doubted) > 0 {
			return retryPlace{of: seq}, err == nil, err
		}
	}
	return p, false, err
}

// carriedOn is the work of the jobs that a job carries on, one after the other, the
// newest first. What is forgotten is left out.
func (g *group) carriedOn(j *Job) (list []*workBuckets, err error) {
	for seq := j.RetryOf; seq != 0 && err == nil; seq, err = g.retryOf(seq) {
		w, err := g.workOf(seq)
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	return list, err
}

// lastRow is the row of a repo in the newest of the given jobs that found it.
func lastRow(carriedOn []*workBuckets, did []byte) (r WorkRepo, found bool, err error) {
	for _, w := range carriedOn {
		r, err := workRepos.Get(w.repos, did)
		switch {
		case err == nil:
			return r, true, nil
		case !errors.Is(err, kv.ErrNotFound):
			return r, false, fmt.Errorf("repo %s: %w", did, err)
		}
	}
	return r, false, nil
}

// doneBefore reports whether one of the given jobs has read a repo, and nothing was found
// out since that would have it read again.
func doneBefore(tx *kv.Tx, carriedOn []*workBuckets, did syntax.DID) (bool, error) {
	r, found, err := lastRow(carriedOn, []byte(did))
	return found && r.Class == ClassDone && !r.undone(tx), err
}

// undone reports whether a job that carries this one on reads the repo.
func (r WorkRepo) undone(tx *kv.Tx) bool {
	return r.State != RepoSettled || r.Class == ClassFailed ||
		r.Assumed && distrusted.Bucket(tx).Get([]byte(r.Host)) != nil
}

// DiscoverRetry adds the repos that the job which is carried on has left undone, and
// those that it had not taken over itself from the one before it, a bounded step at a
// time. It returns true when all have been looked at.
func (s *Work) DiscoverRetry(ctx context.Context, seq uint64) (bool, error) {
	return write(ctx, s.file, urgent("discover repos to retry"), func(g *group) (bool, error) {
		j, w, err := g.open(seq)
		if err != nil {
			return false, err
		}
		at, left, err := w.undone(j)
		if err != nil || !left {
			return err == nil, err
		}
		return g.discoverRetry(j, w, at)
	})
}

func (g *group) discoverRetry(j *Job, w *workBuckets, at retryPlace) (bool, error) {
	from, err := g.workOf(at.of)
	if errors.Is(err, kv.ErrNotFound) {
		return false, kv.Refuse(fmt.Errorf("the repos of the job to retry are forgotten: %w", ErrNothingLeft))
	}
	if err != nil {
		return false, err
	}
	line, err := g.carriedOn(j)
	if err != nil {
		return false, err
	}
	var dids []syntax.DID
	cur, looked, left := from.repos.Cursor(), 0, true
	k, _ := cur.Seek([]byte(at.did))
	for ; k != nil && looked < g.tx.Bound(retryStep); k, _ = cur.Next() {
		r, _, err := lastRow(line, k)
		if err != nil {
			return false, err
		}
		if r.undone(g.tx) {
			dids = append(dids, syntax.DID(k))
		}
		looked++
	}
	if at.did = string(k); k == nil {
		if at, left, err = g.before(at.of, from); err != nil {
			return false, err
		}
	}
	if _, err := g.discover(j, w, dids, nil); err != nil {
		return false, err
	}
	c := Cursor{Done: !left}
	if left {
		c.Cursor = at.String()
	}
	return c.Done, cursors.Put(w.cursors, []byte(retryListing), c)
}
