package backfill

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

// targets are the collections that a new job covers: the one it names, else the
// tracked ones, else (none) every collection that a repo has.
func (b *Backfill) targets(ctx context.Context, req store.Request) ([]syntax.NSID, error) {
	if req.Collection != "" {
		return []syntax.NSID{req.Collection}, nil
	}
	tracked, err := b.cfg.Store.Tracked(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracked collections: %w", err)
	}
	return tracked, nil
}
