package jobs

import (
	"bytes"
	"errors"

	"appview/store/index"
	"appview/store/kv"
)

// Names of buckets that are not tables.
const (
	jobIDsBucket = "job_ids"
	workBucket   = "work"
)

// Buckets of one job's work.
const (
	cursorBucket    = "cursor"
	workReposBucket = "repos"
	owedBucket      = "owed"
	hostsBucket     = "hosts"
	listedBucket    = "listed"

	// absentBucket stood in the place of listedBucket up to format 8.
	absentBucket = "absent"
)

// New returns what an open file holds of jobs, their work and the tracked collections.
func New(db *kv.DB, ix *index.Index) (*Jobs, *Work, *Collections) {
	f := file{db: db, index: ix}
	return &Jobs{f}, &Work{f}, &Collections{f}
}

// Part is what this package brings to a file.
func Part() kv.Part {
	return kv.Part{
		Buckets: []string{
			jobs.Name, jobIDsBucket, workBucket, collections.Name,
			distrusted.Name, unfinishedBucket, freshness.Name, totals.Name, pauses.Name, replies.Name,
		},
		Migrations: map[int]func(*kv.Tx) error{
			1: func(tx *kv.Tx) error {
				return kv.MakeBuckets(tx, jobs.Name, jobIDsBucket, workBucket, collections.Name)
			},
			2: func(tx *kv.Tx) error { return kv.MakeBuckets(tx, distrusted.Name) },
			4: addUnfinished,
			5: addTotals,
			9: toFormat9,
		},
		Check: check,
		Prune: prune,
	}
}

// toFormat9 brings what has come since format 8.
func toFormat9(tx *kv.Tx) error {
	return errors.Join(retrack(tx), cancelMisspelt(tx), addListed(tx), kv.MakeBuckets(tx, pauses.Name, replies.Name))
}

// addListed makes the buckets of what repos read in steps have listed, in place of those
// of what they have not. A repo in the middle of its steps is read anew (Position.Marked).
func addListed(tx *kv.Tx) error {
	work := tx.Bucket([]byte(workBucket))
	var jobs [][]byte
	if err := work.ForEachBucket(func(seq []byte) error {
		jobs = append(jobs, bytes.Clone(seq))
		return nil
	}); err != nil {
		return err
	}
	for _, seq := range jobs {
		w := work.Bucket(seq)
		if w.Bucket([]byte(absentBucket)) != nil { // else the job is being forgotten
			if err := w.DeleteBucket([]byte(absentBucket)); err != nil {
				return err
			}
		}
		if _, err := w.CreateBucketIfNotExists([]byte(listedBucket)); err != nil {
			return err
		}
	}
	return nil
}
