package backfill

import (
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
)

// Check has which short pages are followed that could be taken for the end be
// chosen by f. It is to be called before Run.
func (b *Backfill) Check(f func(syntax.DID) bool) { b.check = f }

// CheckNow is how they are chosen otherwise.
func CheckNow(did syntax.DID) bool { return checkNow(did) }

// RefreshDue creates the jobs that are due, as Run does now and then.
func (b *Backfill) RefreshDue(ctx context.Context) error { return b.refreshDue(ctx) }

// RelayPage asks for a page of a relay's listing until there is one, or an error.
func (b *Backfill) RelayPage(ctx context.Context, ask func(context.Context, string) (network.ReposPage, error)) (network.ReposPage, error) {
	return (&worker{b: b, log: b.cfg.Log}).page(ctx, listing{page: ask}, "")
}
