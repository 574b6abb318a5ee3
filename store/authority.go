package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/internal/api"
)

// misspelt reports whether a collection is named as none may be: the authority of an NSID,
// all but its last segment, is in lower case.
func misspelt(c syntax.NSID) bool { return c.Normalize() != c }

// lowerAuthorities takes names of collections whose authority is not in lower case out of
// a file. What was tracked under one is tracked under the right one, and is to be read
// anew: nothing that was read for the wrong one says anything about it. Its records are
// deleted, and its unfinished jobs cancelled, with the next start.
func lowerAuthorities(tx *bbolt.Tx) error {
	return errors.Join(retrack(tx), cancelMisspelt(tx), purgeMisspelt(tx))
}

// retrack brings the tracked collections to their right names.
func retrack(tx *bbolt.Tx) error {
	names, err := misspeltKeys(collections.bucket(tx))
	if err != nil {
		return err
	}
	for _, wrong := range names {
		row, err := collections.get(collections.bucket(tx), wrong)
		if err != nil {
			return fmt.Errorf("collection %s: %w", wrong, err)
		}
		b, right := collections.bucket(tx), []byte(syntax.NSID(wrong).Normalize())
		if b.Get(right) == nil {
			if err := collections.put(b, right, row); err != nil {
				return err
			}
		}
		if err := errors.Join(b.Delete(wrong), freshness.bucket(tx).Delete(wrong)); err != nil {
			return fmt.Errorf("collection %s: %w", wrong, err)
		}
	}
	return nil
}

// cancelMisspelt asks jobs over misspelt collections to stop.
func cancelMisspelt(tx *bbolt.Tx) error {
	list, err := unfinished(tx)
	if err != nil {
		return err
	}
	for _, j := range list {
		if slices.ContainsFunc(j.Targets, misspelt) {
			j.Status = api.StatusCancelling
			if err := jobs.put(jobs.bucket(tx), u64Key(j.Seq), j); err != nil {
				return err
			}
		}
	}
	return nil
}

// purgeMisspelt has all records of misspelt collections deleted.
func purgeMisspelt(tx *bbolt.Tx) error {
	names, err := misspeltKeys(tx.Bucket([]byte(recordsBucket)))
	if err != nil {
		return err
	}
	b := purges.bucket(tx)
	for _, name := range names {
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		if err := purges.put(b, u64Key(n), purgeRow{Filter: Filter{Collection: syntax.NSID(name)}, Seq: math.MaxUint64}); err != nil {
			return err
		}
	}
	return nil
}

// misspeltKeys are the keys of a bucket, each the name of a collection, that are misspelt.
func misspeltKeys(b *bbolt.Bucket) (names [][]byte, err error) {
	err = b.ForEach(func(k, _ []byte) error {
		if misspelt(syntax.NSID(k)) {
			names = append(names, bytes.Clone(k))
		}
		return nil
	})
	return names, err
}
