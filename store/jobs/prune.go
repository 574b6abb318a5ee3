package jobs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"appview/internal/api"
	"appview/store/index"
	"appview/store/kv"
)

// How long what is no longer needed is kept.
const (
	keepWork = 28 * 24 * time.Hour // the repos of a final job, for its report
	// The repos of a job of the schedule are kept for less: there is a new one every
	// day, over as many repos.
	keepRefreshWork = 3 * 24 * time.Hour
)

// keepJobs is how many jobs are kept. When there are more, those that ended and were
// created first are forgotten. Jobs of the schedule are forgotten after keepWork: a
// year of them tells nobody more than the last month.
const keepJobs = 10_000

// mostOld bounds the jobs that are to be forgotten in one step.
const mostOld = 2_000

// prune deletes the work rows of jobs that ended long ago, jobs, and old replies. Which
// jobs these are is looked up outside of the writer.
func prune(ctx context.Context, db *kv.DB) (func(*kv.Tx, *int) error, error) {
	old, err := kv.Read(ctx, db, oldJobs)
	if err != nil {
		return nil, err
	}
	return func(tx *kv.Tx, left *int) error {
		g, err := groups.In(tx)
		if err != nil {
			return err
		}
		if err := g.pruneWork(left, old); err != nil {
			return err
		}
		if err := g.pruneJobs(left, old); err != nil {
			return err
		}
		return pruneReplies(tx, left)
	}, nil
}

// oldJobs are jobs to be forgotten, no more than fit into one step.
func oldJobs(tx *kv.Tx) (map[uint64]bool, error) {
	old := map[uint64]bool{}
	steady, err := tx.StoredClock()
	if err != nil {
		return nil, err
	}
	running, err := unfinished(tx)
	if err != nil {
		return nil, err
	}
	needed := map[uint64]bool{} // by those that carry them on
	for _, j := range running {
		needed[j.RetryOf] = true
	}
	b := jobs.Bucket(tx)
	over := b.Stats().KeyN - keepJobs
	return old, b.ForEach(func(k, row []byte) error {
		j, err := jobs.Decode(k, row)
		if err != nil {
			return fmt.Errorf("job %x: %w", k, err)
		}
		if !j.Status.Final() || needed[j.Seq] || len(old) == mostOld {
			return nil
		}
		past := j.Origin == api.OriginRefresh && j.keptFor(steady) >= keepWork
		if past && len(j.Targets) > 0 { // the last that is known of a collection stays
			f, err := freshnessOf(tx, j.Targets[0])
			if err != nil {
				return err
			}
			past = f.Last != j.Seq
		}
		if over > 0 || past {
			old[j.Seq] = true
			over--
		}
		return nil
	})
}

// pruneJobs forgets the old jobs whose work is forgotten.
func (g *group) pruneJobs(left *int, old map[uint64]bool) error {
	b, work := jobs.Bucket(g.tx), g.tx.Bucket([]byte(workBucket))
	for seq := range old {
		key := kv.NumberKey(seq)
		if *left == 0 || work.Bucket(key) != nil || g.jobs[seq] != nil {
			continue
		}
		j, err := jobs.Get(b, key)
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		*left--
		if err := errors.Join(b.Delete(key), g.tx.Bucket([]byte(jobIDsBucket)).Delete(j.ID[:])); err != nil {
			return fmt.Errorf("forget job %s: %w", j.ID, err)
		}
	}
	return nil
}

func (g *group) pruneWork(left *int, old map[uint64]bool) error {
	needed, err := g.needed()
	if err != nil {
		return err
	}
	work := g.tx.Bucket([]byte(workBucket))
	c := work.Cursor()
	for k, _ := c.First(); k != nil && *left > 0; k, _ = c.Next() {
		j := g.jobs[binary.BigEndian.Uint64(k)]
		if j == nil { // not one that this group has just made or changed
			stored, err := jobs.Get(jobs.Bucket(g.tx), k)
			if err != nil {
				return err
			}
			j = &stored
		}
		keep := keepWork
		if j.Origin == api.OriginRefresh {
			keep = keepRefreshWork
		}
		if !j.Status.Final() || needed[j.Seq] || j.keptFor(g.tx.Steady) < keep && !old[j.Seq] {
			continue
		}
		delete(g.work, j.Seq)
		if err := forget(work.Bucket(k), left); err != nil {
			return fmt.Errorf("prune work of job %s: %w", j.ID, err)
		}
		if *left > 0 {
			*left = 0 // the cursor does not survive the deletion: go on in the next step
			return work.DeleteBucket(bytes.Clone(k))
		}
	}
	return nil
}

// forget deletes up to left rows of a job's work. The cursors, of which there are few,
// go first and at once: without them nobody takes what is left for all of it.
func forget(work *kv.Bucket, left *int) error {
	if work.Bucket([]byte(cursorBucket)) != nil {
		if err := work.DeleteBucket([]byte(cursorBucket)); err != nil {
			return err
		}
	}
	if listed := work.Bucket([]byte(listedBucket)); listed != nil {
		if err := index.MarksIn(listed).Drop(left); err != nil {
			return err
		}
	}
	names := []string{workReposBucket, owedBucket, hostsBucket, listedBucket}
	for _, name := range names {
		b := work.Bucket([]byte(name))
		if b == nil {
			return fmt.Errorf("%w: there is no %s", kv.ErrRow, name)
		}
		if err := kv.DeleteFirst(b, left, func(_, _ []byte) bool { return true }); err != nil {
			return err
		}
	}
	if *left == 0 {
		return nil
	}
	// One by one: bbolt skips some when it deletes a bucket out of which another was
	// deleted in the same transaction, and loses their pages.
	for _, name := range names {
		if err := work.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}
