package backfill

import (
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Check has which short pages are followed that could be taken for the end be
// chosen by f. It is to be called before Run.
func (b *Backfill) Check(f func(syntax.DID) bool) { b.check = f }

// CheckNow is how they are chosen otherwise.
func CheckNow(did syntax.DID) bool { return checkNow(did) }

// RefreshDue creates the jobs that are due, as Run does now and then.
func (b *Backfill) RefreshDue(ctx context.Context) error { return b.refreshDue(ctx) }
