package store

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

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
	// First of all: what is denied is served until it is hidden.
	if err := s.enforce(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := s.resumePurges(ctx); err != nil {
		return ended(ctx, fmt.Errorf("go on with deletions: %w", err))
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
			if err := s.SaveUses(ctx); err != nil {
				return ended(ctx, err)
			}
			saved = time.Now()
		}
		began := time.Now()
		if err := s.indexAll(ctx); err != nil {
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

// indexAll brings the key index of every collection a run nearer to its records.
func (s *Store) indexAll(ctx context.Context) error {
	var behind []syntax.NSID
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		for _, name := range collectionNames(tx) {
			lag, err := indexLag(tx, []byte(name))
			if err != nil {
				return err
			}
			if lag > 0 {
				behind = append(behind, syntax.NSID(name))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range behind {
		if _, err := s.IndexKeys(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
