package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// How long what is no longer needed is kept.
const (
	keepDeletions = 30 * 24 * time.Hour // notes of deleted records
	keepWork      = 28 * 24 * time.Hour // the repos of a final job, for its report
)

// pruneStep bounds the rows deleted in one transaction of Prune.
const pruneStep = 2_000

// Prune deletes a bounded step of what is kept no longer: old notes of deleted
// records, the work rows of jobs that ended long ago, and old events. It returns
// true when nothing is left to delete.
func (s *Store) Prune(ctx context.Context) (bool, error) {
	var done bool
	err := s.wait(ctx, change{op: "prune", urgent: true, apply: func(g *group) error {
		left := pruneStep
		if err := g.pruneDeletions(&left); err != nil {
			return err
		}
		if err := g.pruneWork(&left); err != nil {
			return err
		}
		if err := g.pruneEvents(&left); err != nil {
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

// drop deletes the first rows of a bucket for which old is true, no more than
// left, and stops at the first for which it is not.
func drop(b *bbolt.Bucket, left *int, old func(k, row []byte) bool) error {
	var keys [][]byte
	c := b.Cursor()
	for k, row := c.First(); k != nil && len(keys) < *left && old(k, row); k, row = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	*left -= len(keys)
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) pruneDeletions(left *int) error {
	limit := g.now.Add(-keepDeletions).Unix()
	for _, name := range collectionNames(g.tx) {
		b := g.tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
		if b == nil || *left == 0 {
			continue
		}
		if err := drop(b, left, func(_, row []byte) bool {
			return len(row) >= deletionHead && int64(binary.BigEndian.Uint64(row)) < limit
		}); err != nil {
			return fmt.Errorf("prune deletions of %s: %w", name, err)
		}
	}
	return nil
}

func (g *group) pruneWork(left *int) error {
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
		if !j.Status.Final() || g.now.Sub(j.CompletedAt) < keepWork {
			continue
		}
		w, err := workOf(g.tx, j.Seq)
		if err != nil {
			return err
		}
		for _, b := range []*bbolt.Bucket{w.repos, w.owed, w.cursors, w.hosts, w.absent} {
			if err := drop(b, left, func(_, _ []byte) bool { return true }); err != nil {
				return fmt.Errorf("prune work of job %s: %w", j.ID, err)
			}
		}
		if *left > 0 {
			*left = 0 // the cursor does not survive the deletion: go on in the next step
			delete(g.work, j.Seq)
			return work.DeleteBucket(bytes.Clone(k))
		}
	}
	return nil
}
