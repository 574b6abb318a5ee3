package index

import (
	"context"
	"errors"

	"appview/store/kv"
)

// Names of buckets that are not tables.
const (
	recordsBucket    = "records"
	logBucket        = "log"
	deletionsBucket  = "deletions"
	keyIndexBucket   = "rkeys"
	keyIndexAtBucket = "rkeys_at"
	didsBucket       = "dids"
)

// Names of meta rows.
const (
	metaNextRID = "next_rid"
	metaNextSeq = "next_seq"
)

// buckets are those of this package at the top of the file.
func buckets() []string {
	return []string{
		recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.Name, didsBucket,
		counts.Name, purges.Name, denials.Name, tombstonesBucket,
	}
}

// Part is what this package brings to a file.
func (x *Index) Part() kv.Part {
	return kv.Part{
		Buckets: buckets(),
		Migrations: map[int]func(*kv.Tx) error{
			1: createBuckets,
			// Record rows are sealed when they are written next. A program that does not
			// know seals must not open the file.
			6: unchangedFile,
			// The same of the rows of tables.
			7: unchangedFile,
			// Of nothing that older formats hold it is known whether it is exact. A program
			// that does not know the mark would leave it on what it changes.
			8:  unchangedFile,
			9:  toFormat9(),
			10: func(tx *kv.Tx) error { return kv.MakeBuckets(tx, tombstonesBucket) },
		},
		Check: check,
		Load:  x.load,
		Prune: func(context.Context, *kv.DB) (func(*kv.Tx, *int) error, error) { return prune, nil },
	}
}

func createBuckets(tx *kv.Tx) error {
	if err := kv.MakeBuckets(tx, buckets()...); err != nil {
		return err
	}
	return errors.Join(tx.PutMeta(metaNextRID, 1), tx.PutMeta(metaNextSeq, 1))
}

func unchangedFile(*kv.Tx) error { return nil }

// toFormat9 brings what has come since format 8.
func toFormat9() func(*kv.Tx) error {
	var sizes addSizes
	return func(tx *kv.Tx) error {
		if err := sizes.step(tx); err != nil {
			return err
		}
		return purgeMisspelt(tx)
	}
}
