package index

import (
	"errors"
	"maps"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// UnchangedSince returns the collections of a repo in which the index holds just what there
// is as long as this is its rev: whoever finds it so at a host need not list them. strict
// says that short pages of the host are known not to be the end of its listings.
func UnchangedSince(tx *kv.Tx, did syntax.DID, host string, rev syntax.TID, strict bool) (list []syntax.NSID, err error) {
	repo, err := repoOf(tx, did)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pending, err := pendingPurges(tx)
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Sorted(maps.Keys(repo.Collections)) {
		if repo.unchangedSince(c, host, rev, strict, pending) {
			list = append(list, c)
		}
	}
	return list, nil
}

// unchangedSince reports whether the index holds just what there is in c at rev, and no
// deletion has still to come to it. What was read with an end that was assumed is looked at
// again at another host, or if the host's short pages have turned out not to be the end.
func (r Repo) unchangedSince(c syntax.NSID, host string, rev syntax.TID, strict bool, pending []purgeRow) bool {
	h := r.Collections[c]
	if h.Floor != rev || slices.ContainsFunc(pending, func(p purgeRow) bool { return p.takes(r.DID, c) }) {
		return false
	}
	return h.Exact == ExactProved || h.Exact == ExactAssumed && r.Host == host && !strict
}

// assumes reports whether a change rests on an end that was assumed, now or when what
// is kept was read.
func (r *repoRow) assumes(c Change) bool {
	return len(c.Assumed) > 0 ||
		slices.ContainsFunc(c.Kept, func(name syntax.NSID) bool { return r.repo.Collections[name].Exact == ExactAssumed })
}
