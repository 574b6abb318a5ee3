package store

import (
	"bytes"
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
	listedBucket    = "listed"

	// absentBucket stood in the place of listedBucket up to format 8.
	absentBucket = "absent"
)

// Names of meta rows.
const (
	metaSchema  = "schema"
	metaNextRID = "next_rid"
	metaNextSeq = "next_seq"
)

// Fill of pages: append keys never need room in the middle, DIDs do. The key
// index is made of sorted runs, most of them newer than all before.
const (
	fillAppend = 0.98
	fillSorted = 0.9
	fillSpread = 0.7
)

// migrations bring a file from version i to i+1. They run in order, each in a
// transaction of its own together with the version it reaches.
var migrations = []func(*bbolt.Tx) error{createSchema, addDistrusted, addAudit, addUnfinished, addTotals, allowSeals, allowTableSeals, allowExact, toFormat9}

func createSchema(tx *bbolt.Tx) error {
	for _, name := range []string{
		metaBucket, recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.name, didsBucket,
		counts.name, jobs.name, jobIDsBucket, workBucket, apiKeys.name, collections.name, purges.name, denials.name,
	} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	meta := tx.Bucket([]byte(metaBucket))
	return errors.Join(putMeta(meta, metaNextRID, 1), putMeta(meta, metaNextSeq, 1))
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
func toFormat9(tx *bbolt.Tx) error {
	return errors.Join(lowerAuthorities(tx), addListed(tx), addPauses(tx))
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
	return []string{
		metaBucket, recordsBucket, logBucket, deletionsBucket, keyIndexBucket, keyIndexAtBucket, repos.name, didsBucket,
		counts.name, jobs.name, jobIDsBucket, workBucket, apiKeys.name, collections.name, purges.name, denials.name,
		distrusted.name, events.name, unfinishedBucket, freshness.name, totals.name, pauses.name,
	}
}

// ErrOlder says that the file must be opened for writing once, to be brought to
// the current schema.
var ErrOlder = errors.New("written by an older version of appview: start appview serve once to bring it up to date")

// version is the schema version of the file, 0 if it is empty.
func version(tx *bbolt.Tx) (uint64, error) {
	if meta := tx.Bucket([]byte(metaBucket)); meta != nil {
		v, err := getMeta(meta, metaSchema)
		if err == nil && v > uint64(len(migrations)) {
			err = fmt.Errorf("schema version %d, this program knows %d: %w", v, len(migrations), ErrNewer)
		}
		return v, err
	}
	if k, _ := tx.Cursor().First(); k != nil {
		return 0, fmt.Errorf("%w: it holds %q, which appview does not write", ErrDamaged, k)
	}
	return 0, nil
}

// current refuses a file that is not of the version that this program writes, or
// lacks what such a file has.
func current(tx *bbolt.Tx) error {
	v, err := version(tx)
	if err == nil && v < uint64(len(migrations)) {
		err = fmt.Errorf("schema version %d, this program reads %d: %w", v, len(migrations), ErrOlder)
	}
	if err != nil {
		return err
	}
	for _, name := range topBuckets() {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: it has no %s: restore a backup", ErrDamaged, name)
		}
	}
	return nil
}

// migrate brings the file to the version that this program writes, or refuses. A
// copy of an older one is kept first.
func (s *Store) migrate() error {
	from, err := s.version()
	if err != nil {
		return err
	}
	if from > 0 && from < uint64(len(migrations)) {
		if err := s.keepOld(from); err != nil {
			return fmt.Errorf("keep a copy of the database before it is brought from format %d to %d: %w", from, len(migrations), err)
		}
	}
	for v := from; v < uint64(len(migrations)); v++ {
		if err := s.migrateFrom(v); err != nil {
			return err
		}
	}
	if from > 0 && from < uint64(len(migrations)) {
		s.cfg.Log.Info("database brought to the current format", "from", from, "to", len(migrations))
	}
	return nil
}

// migrateFrom brings the file from a version to the next one, in one transaction.
func (s *Store) migrateFrom(v uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := migrations[v](tx); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", v+1, err)
		}
		return putMeta(tx.Bucket([]byte(metaBucket)), metaSchema, v+1)
	})
}

func (s *Store) version() (v uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error { v, err = version(tx); return err })
	return v, err
}

func getMeta(meta *bbolt.Bucket, name string) (uint64, error) {
	row := meta.Get([]byte(name))
	n, ok := numberOf([]byte(name), row)
	if !ok {
		return 0, fmt.Errorf("%w: meta %s is no number: %x", errRow, name, row[:min(len(row), 16)])
	}
	return n, nil
}

func putMeta(meta *bbolt.Bucket, name string, n uint64) error {
	row := sealedNumber([]byte(name), n)
	if name == metaSchema { // every version reads it, also one that does not know seals
		row = u64Key(n)
	}
	if err := meta.Put([]byte(name), row); err != nil {
		return fmt.Errorf("put meta %s: %w", name, err)
	}
	return nil
}
