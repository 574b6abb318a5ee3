package backfill

import (
	"context"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill/read"
	"appview/internal/network"
)

// Check has which short pages are followed that could be taken for the end be
// chosen by f. It is to be called before Run.
func (b *Backfill) Check(f func(syntax.DID) bool) { b.follow = f }

// CheckNow is how they are chosen otherwise.
func CheckNow(did syntax.DID) bool { return read.Follow(did) }

// RefreshDue creates the jobs that are due, as Run does now and then.
func (b *Backfill) RefreshDue(ctx context.Context) error { return b.refreshDue(ctx) }

// WaitedFor has a job's wait for the directory have begun earlier by d.
func (b *Backfill) WaitedFor(id uuid.UUID, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.workers[id].directory
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait.Since = s.wait.Since.Add(-d)
}

// RelayPage asks for a page of a relay's listing until there is one, or an error.
func (b *Backfill) RelayPage(ctx context.Context, ask func(context.Context, string) (network.ReposPage, error)) (network.ReposPage, error) {
	return (&worker{b: b, log: b.cfg.Log}).page(ctx, listing{page: ask}, "")
}
