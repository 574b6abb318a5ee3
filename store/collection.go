package store

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"
)

// trackedRow is a tracked collection.
type trackedRow struct {
	AddedAt time.Time `json:"added_at"`
}

var collections = table[trackedRow]{name: "collections", version: 1, fill: fillSpread}

// Track adds a collection to the tracked ones.
func (s *Store) Track(ctx context.Context, collection syntax.NSID) error {
	return s.do(ctx, "track "+collection.String(), func(g *group) error {
		b := collections.bucket(g.tx)
		if b.Get([]byte(collection)) != nil {
			return nil
		}
		return collections.put(b, []byte(collection), trackedRow{AddedAt: g.now})
	})
}

// Tracked returns the tracked collections, in order.
func (s *Store) Tracked(ctx context.Context) (list []syntax.NSID, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return collections.bucket(tx).ForEach(func(k, row []byte) error {
			if _, err := collections.decode(row); err != nil {
				return fmt.Errorf("collection %s: %w", k, err)
			}
			list = append(list, syntax.NSID(k))
			return nil
		})
	})
	return list, err
}
