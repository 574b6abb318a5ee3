package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// ErrNewer says that the file was written by a later version of the program.
var ErrNewer = errors.New("written by a newer version of appview")

// Names of buckets that are not tables.
const (
	metaBucket      = "meta"
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
	absentBucket    = "absent"
)

// Names of meta rows.
const (
	metaSchema  = "schema"
	metaNextRID = "next_rid"
	metaNextSeq = "next_seq"
)

// Fill of pages: append keys never need room in the middle, DIDs do.
const (
	fillAppend = 0.95
	fillSpread = 0.7
)

// migrations bring a file from version i to i+1. They run in order, each in a
// transaction of its own together with the version it reaches.
var migrations = []func(*bbolt.Tx) error{createSchema}

func createSchema(tx *bbolt.Tx) error {
	for _, name := range []string{
		metaBucket, recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.name, didsBucket,
		counts.name, jobs.name, jobIDsBucket, workBucket, apiKeys.name, collections.name, purges.name,
	} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	meta := tx.Bucket([]byte(metaBucket))
	return errors.Join(putMeta(meta, metaNextRID, 1), putMeta(meta, metaNextSeq, 1))
}

// migrate brings the file to the version that this program writes, or refuses.
func migrate(db *bbolt.DB) error {
	for {
		done := false
		err := db.Update(func(tx *bbolt.Tx) error {
			var version uint64
			if meta := tx.Bucket([]byte(metaBucket)); meta != nil {
				var err error
				if version, err = getMeta(meta, metaSchema); err != nil {
					return err
				}
			} else if k, _ := tx.Cursor().First(); k != nil {
				return fmt.Errorf("%w: it holds %q, which appview does not write", ErrDamaged, k)
			}
			switch latest := uint64(len(migrations)); {
			case version > latest:
				return fmt.Errorf("schema version %d, this program knows %d: %w", version, latest, ErrNewer)
			case version == latest:
				done = true
				return nil
			}
			if err := migrations[version](tx); err != nil {
				return fmt.Errorf("migrate to schema %d: %w", version+1, err)
			}
			return putMeta(tx.Bucket([]byte(metaBucket)), metaSchema, version+1)
		})
		if err != nil || done {
			return err
		}
	}
}

func getMeta(meta *bbolt.Bucket, name string) (uint64, error) {
	row := meta.Get([]byte(name))
	if len(row) != 8 {
		return 0, fmt.Errorf("%w: meta %s has %d bytes, not 8", errRow, name, len(row))
	}
	return binary.BigEndian.Uint64(row), nil
}

func putMeta(meta *bbolt.Bucket, name string, n uint64) error {
	if err := meta.Put([]byte(name), u64Key(n)); err != nil {
		return fmt.Errorf("put meta %s: %w", name, err)
	}
	return nil
}
