package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/kv"
)

// Discovery is what one page of a listing brought.
type Discovery struct {
	Listing  string // the collection, or another name of the listing
	DIDs     []syntax.DID
	Inactive []syntax.DID // of these, those whose accounts are said not to be active
	Cursor   Cursor
}

// Discover commits a page of a listing: its new repos, their number and the
// cursor behind it. It returns how many were new.
func (s *Work) Discover(ctx context.Context, seq uint64, d Discovery) (int, error) {
	inactive := make(map[syntax.DID]bool, len(d.Inactive))
	for _, did := range d.Inactive {
		inactive[did] = true
	}
	return write(ctx, s.file, urgent("discover"), func(g *group) (int, error) {
		j, w, err := g.open(seq)
		if err != nil {
			return 0, err
		}
		added, err := g.discover(j, w, d.DIDs, inactive)
		if err != nil {
			return 0, err
		}
		return added, cursors.Put(w.cursors, []byte(d.Listing), d.Cursor)
	})
}

// discover adds repos to a job, but for those that it has found before, or that were
// done in a job that it carries on.
func (g *group) discover(j *Job, w *workBuckets, dids []syntax.DID, inactive map[syntax.DID]bool) (added int, err error) {
	j.Listed = true
	carriedOn, err := g.carriedOn(j)
	if err != nil {
		return 0, err
	}
	for _, did := range dids {
		if w.repos.Get([]byte(did)) != nil {
			continue
		}
		if done, err := doneBefore(g.tx, carriedOn, did); done || err != nil {
			if err != nil {
				return added, err
			}
			continue
		}
		if err := workRepos.Put(w.repos, []byte(did), WorkRepo{State: RepoFound}); err != nil {
			return added, err
		}
		if err := w.putOwed(Owed{DID: did, Probe: inactive[did]}); err != nil {
			return added, err
		}
		added++
	}
	j.TotalRepos += int64(added)
	j.Unresolved += int64(added)
	return added, nil
}

// heldStep bounds the repos looked at in one transaction of DiscoverHeld.
const heldStep = 10_000

// heldListing is the name of the cursor over the repos that the index holds: the
// number of the next repo, in decimal.
const heldListing = "\x00held"

// DiscoverHeld adds the repos of which the index holds records of the job's
// targets, whether a listing named them or not, a bounded step at a time. It
// returns true when all have been looked at.
//
// Listings drop repos that were emptied or are inactive. Their records must not
// stay for ever.
func (s *Work) DiscoverHeld(ctx context.Context, seq uint64) (bool, error) {
	return write(ctx, s.file, urgent("discover held repos"), func(g *group) (bool, error) {
		j, w, err := g.open(seq)
		if err != nil {
			return false, err
		}
		at, err := cursors.Get(w.cursors, []byte(heldListing))
		if err != nil && !errors.Is(err, kv.ErrNotFound) || at.Done {
			return at.Done, err
		}
		from, err := strconv.ParseUint("0"+at.Cursor, 10, 32)
		if err != nil {
			return false, fmt.Errorf("%w: cursor over held repos: %w", kv.ErrRow, err)
		}
		dids, next, err := index.HeldRepos(g.tx, uint32(from), g.tx.Bound(heldStep), j.Targets)
		if err != nil {
			return false, err
		}
		at = Cursor{Pages: at.Pages + 1, Done: next == 0}
		if !at.Done {
			at.Cursor = strconv.FormatUint(uint64(next), 10)
		}
		if _, err := g.discover(j, w, dids, nil); err != nil {
			return false, err
		}
		return at.Done, cursors.Put(w.cursors, []byte(heldListing), at)
	})
}

// EndDiscovery notes that discovery is over, with the reason if it could not
// reach its end.
func (s *Work) EndDiscovery(ctx context.Context, seq uint64, reason string) error {
	return s.do(ctx, urgent("end discovery"), func(g *group) error {
		j, _, err := g.open(seq)
		if err != nil {
			return err
		}
		j.Discovered, j.DiscoveryError = true, reason
		j.work()
		return nil
	})
}
