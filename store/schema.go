package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"appview/store/admin"
	"appview/store/kv"
)

// Names of buckets that are not tables.
const (
	recordsBucket   = "records"
	logBucket       = "log"
	deletionsBucket = "deletions"
	keyIndexBucket  = "rkeys"
	didsBucket      = "dids"
	jobIDsBucket    = "job_ids"
	workBucket      = "work"

	keyIndexAtBucket = "rkeys_at"
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

// Names of meta rows.
const (
	metaNextRID = "next_rid"
	metaNextSeq = "next_seq"
)

// schema is what a file of ours consists of.
func schema() kv.Schema {
	return kv.Schema{Migrations: migrations(), Buckets: topBuckets(), Checks: []func(context.Context, *kv.Checker) error{admin.Check, check}}
}

// migrations bring a file from version i to i+1, in order.
func migrations() []func(*kv.Tx) error {
	return []func(*kv.Tx) error{
		createSchema, within(addDistrusted), admin.AddAudit, within(addUnfinished), within(addTotals),
		within(allowSeals), within(allowTableSeals), within(allowExact), toFormat9(),
	}
}

// within is a migration that needs nothing but bbolt's transaction.
func within(migrate func(*bbolt.Tx) error) func(*kv.Tx) error {
	return func(tx *kv.Tx) error { return migrate(tx.Tx) }
}

func createSchema(tx *kv.Tx) error {
	for _, name := range []string{
		recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.name, didsBucket,
		counts.name, jobs.name, jobIDsBucket, workBucket, "keys", collections.name, purges.name, denials.name,
	} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return errors.Join(tx.PutMeta(metaNextRID, 1), tx.PutMeta(metaNextSeq, 1))
}

// addDistrusted makes the bucket of hosts whose short pages are not trusted.
func addDistrusted(tx *bbolt.Tx) error {
	_, err := tx.CreateBucketIfNotExists([]byte(distrusted.name))
	return err
}

// allowSeals changes nothing: record rows are sealed when they are written next. A
// program that does not know seals must not open the file.
func allowSeals(*bbolt.Tx) error { return nil }

// allowTableSeals is the same of the rows of tables.
func allowTableSeals(*bbolt.Tx) error { return nil }

// allowExact changes nothing: of nothing that older formats hold it is known whether it
// is exact. A program that does not know the mark would leave it on what it changes.
func allowExact(*bbolt.Tx) error { return nil }

// toFormat9 brings what has come since format 8.
func toFormat9() func(*kv.Tx) error {
	var sizes addSizes
	return func(tx *kv.Tx) error {
		if err := sizes.step(tx); err != nil {
			return err
		}
		return errors.Join(lowerAuthorities(tx.Tx), addListed(tx.Tx), addPauses(tx.Tx), addReplies(tx.Tx))
	}
}

// addListed makes the buckets of what repos read in steps have listed, in place of those
// of what they have not. A repo in the middle of its steps is read anew (Position.Marked).
func addListed(tx *bbolt.Tx) error {
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

// topBuckets are the buckets that a file of the current version has at its top.
func topBuckets() []string {
	return append(admin.Buckets(),
		recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.name, didsBucket,
		counts.name, jobs.name, jobIDsBucket, workBucket, collections.name, purges.name, denials.name,
		distrusted.name, unfinishedBucket, freshness.name, totals.name, pauses.name, replies.name)
}
