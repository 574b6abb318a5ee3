package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"
)

// Kept returns the collections of a repo in which the index holds just what there is as
// long as this is its rev: a job that finds it so at a host need not list them.
func (s *Store) Kept(ctx context.Context, host string, did syntax.DID, rev syntax.TID) (list []syntax.NSID, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		repo, err := repoOf(tx, did)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		pending, err := pendingPurges(tx)
		if err != nil {
			return err
		}
		for _, c := range slices.Sorted(maps.Keys(repo.Collections)) {
			if repo.keeps(tx, c, host, rev, pending) {
				list = append(list, c)
			}
		}
		return nil
	})
	return list, err
}

// keeps tells whether the index holds just what there is in c at rev, and no deletion
// has still to come to it. What was read with an end that was assumed is looked at again
// at another host, or if the host's short pages have turned out not to be the end.
func (r Repo) keeps(tx *bbolt.Tx, c syntax.NSID, host string, rev syntax.TID, pending []purgeRow) bool {
	h := r.Collections[c]
	if h.Floor != rev || slices.ContainsFunc(pending, func(p purgeRow) bool { return p.takes(r.DID, c) }) {
		return false
	}
	return h.Exact == ExactProved ||
		h.Exact == ExactAssumed && r.Host == host && distrusted.bucket(tx).Get([]byte(host)) == nil
}

// keep counts what a settlement takes as read because the index holds it. It refuses
// if that is not so, or not any more.
func (r *repoRow) keep(t Settlement, tally *Tally) error {
	if len(t.Kept) == 0 {
		return nil
	}
	pending, err := r.g.pendingPurges()
	if err != nil {
		return err
	}
	for _, c := range t.Kept {
		if !r.repo.keeps(r.g.tx, c, t.Reading.Host, t.Floor, pending) {
			return refuse(fmt.Errorf("settle %s: what is held of %s at %s: %w", t.DID, c, t.Floor, ErrUndone))
		}
		tally.Records += r.repo.Collections[c].Count
	}
	return nil
}

// assumes tells whether a settlement rests on an end that was assumed, now or when what
// is kept was read.
func (r *repoRow) assumes(t Settlement) bool {
	return len(t.Short.Assumed) > 0 ||
		slices.ContainsFunc(t.Kept, func(c syntax.NSID) bool { return r.repo.Collections[c].Exact == ExactAssumed })
}
