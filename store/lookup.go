package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// JobBySeq returns the job that was created as the one with the given number, or
// ErrNotFound. What carries a job on names it by that number.
func (s *Store) JobBySeq(ctx context.Context, seq uint64) (job Job, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		job, err = jobs.get(jobs.bucket(tx), u64Key(seq))
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("job number %d: %w", seq, ErrNotFound)
		}
		return err
	})
	return job, err
}
