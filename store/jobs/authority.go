package jobs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/index"
	"appview/store/kv"
)

// retrack brings the tracked collections whose authority is not in lower case to their right
// names. What was tracked under a wrong one is to be read anew: nothing that was read for it
// says anything about the right one.
func retrack(tx *kv.Tx) error {
	names, err := index.MisspeltKeys(collections.Bucket(tx))
	if err != nil {
		return err
	}
	for _, wrong := range names {
		row, err := collections.Get(collections.Bucket(tx), wrong)
		if err != nil {
			return fmt.Errorf("collection %s: %w", wrong, err)
		}
		b, right := collections.Bucket(tx), []byte(syntax.NSID(wrong).Normalize())
		if b.Get(right) == nil {
			if err := collections.Put(b, right, row); err != nil {
				return err
			}
		}
		if err := errors.Join(b.Delete(wrong), freshness.Bucket(tx).Delete(wrong)); err != nil {
			return fmt.Errorf("collection %s: %w", wrong, err)
		}
	}
	return nil
}

// cancelMisspelt asks jobs over misspelt collections to stop.
func cancelMisspelt(tx *kv.Tx) error {
	list, err := unfinished(tx)
	if err != nil {
		return err
	}
	for _, j := range list {
		if slices.ContainsFunc(j.Targets, index.Misspelt) {
			j.Status = api.StatusCancelling
			if err := jobs.Put(jobs.Bucket(tx), kv.NumberKey(j.Seq), j); err != nil {
				return err
			}
		}
	}
	return nil
}
