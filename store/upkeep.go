package store

import (
	"context"
	"time"

	"appview/store/admin"
)

const (
	// pruneEvery is how often what is kept no longer is deleted.
	pruneEvery = time.Hour
	// indexEvery is how often the key index is brought up to date while little
	// changes, and indexShare the part of the writer's time that it may take.
	indexEvery = 2 * time.Second
	indexShare = 10
)

// Run keeps the file in order until ctx ends: it enforces the deny list, goes on with
// deletions that an earlier process has left, deletes what is kept no longer,
// notes when API keys were used, brings the key index up to date, and notices when
// the file is taken away.
func (s *Store) Run(ctx context.Context) error {
	if err := s.Index.Resume(ctx); err != nil {
		return ended(ctx, err)
	}
	var pruned time.Time
	saved := time.Now()
	timer := time.NewTimer(indexEvery)
	defer timer.Stop()
	for {
		if err := s.db.CheckPlace(); err != nil {
			return err
		}
		if time.Since(pruned) >= pruneEvery {
			for done := false; !done; {
				var err error
				if done, err = s.Prune(ctx); err != nil {
					return ended(ctx, err)
				}
			}
			pruned = time.Now()
		}
		if time.Since(saved) >= admin.SaveEvery {
			if err := s.Admin.SaveUses(ctx); err != nil {
				return ended(ctx, err)
			}
			saved = time.Now()
		}
		began := time.Now()
		if err := s.Index.IndexAll(ctx); err != nil {
			return ended(ctx, err)
		}
		timer.Reset(max(indexEvery, indexShare*time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ended hides the errors that a shutdown causes.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
