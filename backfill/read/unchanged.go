package read

import (
	"context"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/repo"
)

// matchIndex takes the collections of an account that has come back as read, of which the
// index holds just what there is at the rev that its host shows: nothing of them is
// asked for again. What else the job wants of the repo is read as ever.
func (r *reading) matchIndex(ctx context.Context) error {
	if r.known == nil || r.known.Active() || r.owed.Position != nil {
		return nil
	}
	held, err := r.cfg.Store.Kept(ctx, r.owed.Host, r.owed.DID, r.rev)
	if err != nil || len(held) == 0 {
		return err
	}
	list, err := r.wantedCollections(ctx, nil)
	if err != nil {
		return err
	}
	if len(r.cfg.Targets) == 0 {
		if !containsAll(held, list) {
			return nil // one request brings it all
		}
		if list, err = r.listCollections(ctx); err != nil || r.rejects.Count > 0 || !containsAll(held, list) {
			r.rejects = repo.Rejects{}
			r.move(begin)
			return nil //nolint:nilerr // likewise, or that says what is wrong
		}
	}
	for _, c := range list {
		if slices.Contains(held, c) {
			r.pass.read[c] = collection{Extent: Held}
		}
	}
	if len(r.pass.read) > 0 {
		r.move(answer) // these were seen at the moment of the probe
	}
	if len(r.pass.read) == len(list) {
		r.move(match)
	}
	return nil
}

func containsAll(list, wanted []syntax.NSID) bool {
	return !slices.ContainsFunc(wanted, func(c syntax.NSID) bool { return !slices.Contains(list, c) })
}

// isStillHeld reports whether the index still holds what an earlier step has left as it
// is there.
func (r *reading) isStillHeld(ctx context.Context, left pass) (bool, error) {
	unchanged := left.with(Held)
	if len(unchanged) == 0 {
		return true, nil
	}
	held, err := r.cfg.Store.Kept(ctx, r.owed.Host, r.owed.DID, left.first)
	return containsAll(held, unchanged), err
}
