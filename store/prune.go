package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

// How long what is no longer needed is kept.
const (
	keepDeletions = 30 * 24 * time.Hour // notes of deleted records
	keepWork      = 28 * 24 * time.Hour // the repos of a final job, for its report
	// The repos of a job of the schedule are kept for less: there is a new one every
	// day, over as many repos.
	keepRefreshWork = 3 * 24 * time.Hour
)

// keepJobs is how many jobs are kept. When there are more, those that ended and were
// created first are forgotten. Jobs of the schedule are forgotten after keepWork: a
// year of them tells nobody more than the last month.
const keepJobs = 10_000

// pruneStep bounds the rows deleted in one transaction of Prune.
const pruneStep = 2_000

// Prune deletes a bounded step of what is kept no longer: old notes of deleted
// records, the work rows of jobs that ended long ago, jobs, old events, and old
// replies. It returns true when nothing is left to delete.
func (s *Store) Prune(ctx context.Context) (bool, error) {
	var done bool
	old, err := s.oldJobs(ctx)
	if err != nil {
		return false, err
	}
	err = s.wait(ctx, change{op: "prune", urgent: true, apply: func(g *group) error {
		left := g.bound(pruneStep)
		if err := g.pruneDeletions(&left); err != nil {
			return err
		}
		if err := g.pruneWork(&left, old); err != nil {
			return err
		}
		if err := g.pruneJobs(&left, old); err != nil {
			return err
		}
		if err := admin.Prune(g.in, &left); err != nil {
			return err
		}
		if err := g.pruneReplies(&left); err != nil {
			return err
		}
		done = left > 0
		return nil
	}})
	if err != nil {
		return false, err
	}
	return done, nil
}

func (g *group) pruneDeletions(left *int) error {
	limit := g.steady.Add(-keepDeletions).Unix()
	freed := map[rid]int64{}
	for _, name := range collectionNames(g.tx) {
		b := g.tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
		if b == nil || *left == 0 {
			continue
		}
		at, err := watermark(g.tx, []byte(name))
		if err != nil {
			return err
		}
		if err := kv.DeleteFirst(b, left, func(k, row []byte) bool {
			// The key index learns from them what it has to take out.
			old := len(row) > deletionHead+ridLen && int64(binary.BigEndian.Uint64(row)) < limit && binary.BigEndian.Uint64(k) <= at
			if old {
				freed[rid(binary.BigEndian.Uint32(row[deletionHead:]))] += deletionBytes(len(row))
			}
			return old
		}); err != nil {
			return fmt.Errorf("prune deletions of %s: %w", name, err)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(freed)) {
		if err := g.giveBack(n, freed[n]); err != nil {
			return fmt.Errorf("prune deletions: %w", err)
		}
	}
	return nil
}

// oldJobs are jobs to be forgotten, no more than fit into one step.
func (s *Store) oldJobs(ctx context.Context) (old map[uint64]bool, err error) {
	old = map[uint64]bool{}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		steady, err := (&kv.Tx{Tx: tx}).StoredClock()
		if err != nil {
			return err
		}
		running, err := unfinished(tx)
		if err != nil {
			return err
		}
		needed := map[uint64]bool{} // by those that carry them on
		for _, j := range running {
			needed[j.RetryOf] = true
		}
		b := jobs.bucket(tx)
		over := b.Stats().KeyN - keepJobs
		return b.ForEach(func(k, row []byte) error {
			j, err := jobs.decode(k, row)
			if err != nil {
				return fmt.Errorf("job %x: %w", k, err)
			}
			if !j.Status.Final() || needed[j.Seq] || len(old) == pruneStep {
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
	})
	return old, err
}

// pruneJobs forgets the old jobs whose work is forgotten.
func (g *group) pruneJobs(left *int, old map[uint64]bool) error {
	b, work := jobs.bucket(g.tx), g.tx.Bucket([]byte(workBucket))
	for seq := range old {
		key := u64Key(seq)
		if *left == 0 || work.Bucket(key) != nil || g.jobs[seq] != nil {
			continue
		}
		j, err := jobs.get(b, key)
		if errors.Is(err, ErrNotFound) {
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
			stored, err := jobs.get(jobs.bucket(g.tx), k)
			if err != nil {
				return err
			}
			j = &stored
		}
		keep := keepWork
		if j.Origin == api.OriginRefresh {
			keep = keepRefreshWork
		}
		if !j.Status.Final() || needed[j.Seq] || j.keptFor(g.steady) < keep && !old[j.Seq] {
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
func forget(work *bbolt.Bucket, left *int) error {
	if work.Bucket([]byte(cursorBucket)) != nil {
		if err := work.DeleteBucket([]byte(cursorBucket)); err != nil {
			return err
		}
	}
	if err := dropMarks(work.Bucket([]byte(listedBucket)), left); err != nil {
		return err
	}
	names := []string{workReposBucket, owedBucket, hostsBucket, listedBucket}
	for _, name := range names {
		b := work.Bucket([]byte(name))
		if b == nil {
			return fmt.Errorf("%w: there is no %s", errRow, name)
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
