package jobs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// unfinishedBucket holds the numbers of the jobs that are not final. There are few
// of them, and they are looked for often, among many that have ended.
const unfinishedBucket = "unfinished"

// Unfinished returns the jobs that are not final, in order of creation.
func (s *Jobs) Unfinished(ctx context.Context) ([]Job, error) {
	return kv.Read(ctx, s.db, unfinished)
}

func unfinished(tx *kv.Tx) (list []Job, err error) {
	b := jobs.Bucket(tx)
	err = tx.Bucket([]byte(unfinishedBucket)).ForEach(func(k, _ []byte) error {
		j, err := jobs.Get(b, k)
		switch {
		case errors.Is(err, kv.ErrNotFound) || err == nil && j.Status.Final():
			return fmt.Errorf("%w: no job %x is unfinished", kv.ErrRow, k)
		case err != nil:
			return fmt.Errorf("unfinished job: %w", err)
		}
		list = append(list, j)
		return nil
	})
	return list, err
}

// unfinished is the same in a transaction whose jobs are not written yet.
func (g *group) unfinished() ([]Job, error) {
	stored, err := unfinished(g.tx)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(stored, func(j Job) bool { return g.jobs[j.Seq] != nil })
	for _, j := range g.jobs {
		if !j.Status.Final() {
			list = append(list, *j)
		}
	}
	slices.SortFunc(list, func(a, b Job) int { return cmp.Compare(a.Seq, b.Seq) })
	return list, nil
}

// keepUnfinished keeps the list in step with a job that is written. When a job has
// ended it notes what came of it in the collections that it covered. Whatever it is
// that ends a job, it comes by here.
func (g *group) keepUnfinished(j *Job) error {
	b, key := g.tx.Bucket([]byte(unfinishedBucket)), kv.NumberKey(j.Seq)
	was := b.Get(key) != nil
	switch {
	case !was && !j.Status.Final():
		return b.Put(key, []byte{1})
	case was && j.Status.Final():
		if err := b.Delete(key); err != nil {
			return err
		}
		return noteEnd(g.tx, j)
	default:
		return nil
	}
}

// covers reports whether the job reads a collection.
func (j *Job) covers(c syntax.NSID) bool {
	return len(j.Targets) == 0 || slices.Contains(j.Targets, c)
}

// checkUnfinished checks the list against the jobs.
func checkUnfinished(ctx context.Context, c *kv.Checker) error {
	b, n := c.Tx.Bucket([]byte(unfinishedBucket)), 0
	err := jobs.Bucket(c.Tx).ForEach(func(k, row []byte) error {
		j, err := jobs.Decode(k, row)
		if err != nil {
			return nil //nolint:nilerr // it is found among the jobs
		}
		if !j.Status.Final() {
			n++
			if b.Get(k) == nil {
				c.Found("job %s is %s, but not among the unfinished ones", j.ID, j.Status)
			}
		}
		return ctx.Err()
	})
	if got := b.Stats().KeyN; got != n {
		c.Found("unfinished has %d rows, %d jobs are not final", got, n)
	}
	return err
}

// addUnfinished makes the list of unfinished jobs and what the others came to in the
// collections that they covered, of jobs that did not note it yet.
func addUnfinished(tx *kv.Tx) error {
	if err := kv.MakeBuckets(tx, unfinishedBucket, freshness.Name); err != nil {
		return err
	}
	all := map[uint64]*Job{}
	var ended []*Job
	b := jobs.Bucket(tx)
	err := b.ForEach(func(k, row []byte) error {
		j, err := jobs.Decode(k, row)
		if err != nil {
			return fmt.Errorf("job %x: %w", k, err)
		}
		all[binary.BigEndian.Uint64(k)] = &j
		return nil
	})
	if err != nil {
		return err
	}
	for seq, j := range all {
		for was := all[j.RetryOf]; was != nil; was = all[was.RetryOf] { // always one that came before
			j.First, j.Since = was.Seq, was.StartedAt
		}
		if j.First != 0 {
			if err := jobs.Put(b, kv.NumberKey(seq), *j); err != nil {
				return err
			}
		}
		if j.Status.Final() {
			ended = append(ended, j)
		} else if err := tx.Bucket([]byte(unfinishedBucket)).Put(kv.NumberKey(seq), []byte{1}); err != nil {
			return err
		}
	}
	slices.SortFunc(ended, func(a, b *Job) int {
		return cmp.Or(a.CompletedAt.Compare(b.CompletedAt), cmp.Compare(a.Seq, b.Seq))
	})
	for _, j := range ended {
		if err := noteEnd(tx, j); err != nil {
			return err
		}
	}
	return nil
}
