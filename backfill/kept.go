package backfill

import (
	"context"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network/repo"
	"appview/store"
)

// keep takes the collections of an account that has come back as read, of which the
// index holds just what there is at the rev that its host shows: nothing of them is
// asked for again. What else the job wants of the repo is read as ever.
func (r *reader) keep(ctx context.Context) error {
	if !r.back || r.o.Position != nil {
		return nil
	}
	held, err := r.w.b.cfg.Store.Kept(ctx, r.o.Host, r.o.DID, r.rev)
	if err != nil || len(held) == 0 {
		return err
	}
	list, err := r.wanted(ctx, nil)
	if err != nil {
		return err
	}
	if len(r.w.targets) == 0 {
		if !containsAll(held, list) {
			return nil // one request brings it all
		}
		if list, err = r.collections(ctx); err != nil || r.rejects.Count > 0 || !containsAll(held, list) {
			r.requests, r.rejects = 0, repo.Rejects{}
			return nil //nolint:nilerr // likewise, or that says what is wrong
		}
	}
	for _, c := range list {
		if slices.Contains(held, c) {
			r.at.Read[c] = store.ReadUpTo{Done: true, Kept: true}
		}
	}
	r.same = len(r.at.Read) == len(list)
	if len(r.at.Read) > 0 {
		r.requests++ // these were seen at the moment of the probe
	}
	return nil
}

func containsAll(list, wanted []syntax.NSID) bool {
	return !slices.ContainsFunc(wanted, func(c syntax.NSID) bool { return !slices.Contains(list, c) })
}

// keptOf are the collections that are taken as the index holds them.
func keptOf(at store.Position) (list []syntax.NSID) {
	for c, read := range at.Read {
		if read.Kept {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}

// keeps tells whether what was kept in an earlier step is still held.
func (r *reader) keeps(ctx context.Context, at store.Position) (bool, error) {
	kept := keptOf(at)
	if len(kept) == 0 {
		return true, nil
	}
	held, err := r.w.b.cfg.Store.Kept(ctx, r.o.Host, r.o.DID, at.First)
	return containsAll(held, kept), err
}
