package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// ErrNotTheEnd says that a short page cannot be taken for the end of a listing:
// at its host they are known not to be, or the index holds records behind it.
var ErrNotTheEnd = errors.New("the short page is not the end of the listing")

// ShortPages is what a reading has shown about pages that were not full and had a
// cursor all the same.
type ShortPages struct {
	Assumed []syntax.NSID // where one was taken for the end without a look
	Ends    []int         // records on those that were followed and were the end
	More    bool          // one that was followed had more behind it
}

// distrust is the row of a host whose short pages have turned out not to be the
// end of its listings. It is there for good, and for every job.
type distrust struct {
	At time.Time `json:"at"`
}

var distrusted = table[distrust]{name: "distrusted", version: 1, fill: fillSpread}

// Distrusted reports whether short pages of a host are known not to be the end of
// its listings.
func (s *Store) Distrusted(ctx context.Context, host string) (known bool, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		known = distrusted.bucket(tx).Get([]byte(host)) != nil
		return nil
	})
	return known, err
}

// MayEnd reports whether a short page of a host, at the end of seg, may be taken for the
// end of the listing of a repo's collection: the host is not distrusted, and the index
// holds nothing that neither seg nor earlier steps of the job have listed. That might
// stand behind the page, in whatever order the host lists, and would be deleted.
func (s *Store) MayEnd(ctx context.Context, seq uint64, host string, did syntax.DID, seg Segment) (may bool, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err == nil {
			may, err = w.mayEnd(tx, host, did, seg)
		}
		return err
	})
	return may, err
}

func (w *workBuckets) mayEnd(tx *bbolt.Tx, host string, did syntax.DID, seg Segment) (bool, error) {
	if distrusted.bucket(tx).Get([]byte(host)) != nil {
		return false, nil
	}
	a, err := w.absenceIn(tx, did, seg)
	if err != nil {
		return false, err
	}
	unlisted, err := a.page("", 1)
	return len(unlisted) == 0, err
}

// checkAssumedEnds refuses a settlement that takes a short page for the end where that must
// not be. Whoever read the repo has asked MayEnd, but others have written since.
func (g *group) checkAssumedEnds(w *workBuckets, t Settlement) error {
	for _, c := range t.Short.Assumed {
		may, err := w.mayEnd(g.tx, t.Reading.Host, t.DID, t.Reading.Segment(c))
		if err != nil {
			return err
		}
		if !may {
			return refuse(fmt.Errorf("settle %s: behind what was listed of %s: %w", t.DID, c, ErrNotTheEnd))
		}
	}
	return nil
}

// recordHostBehaviour notes what a settlement has shown about the short pages of its host.
func (g *group) recordHostBehaviour(j *Job, t Settlement) error {
	if t.Short.More {
		b := distrusted.bucket(g.tx)
		if b.Get([]byte(t.Reading.Host)) != nil {
			return nil
		}
		return distrusted.put(b, []byte(t.Reading.Host), distrust{At: g.now})
	}
	if len(t.Short.Ends) == 0 {
		return nil
	}
	h, err := g.host(j.Seq, t.Reading.Host)
	if err == nil {
		h.Ends += len(t.Short.Ends)
		h.LongestEnd = max(h.LongestEnd, slices.Max(t.Short.Ends))
	}
	return err
}

// doubted are the hosts of a job at which ends are assumed that must not be.
func (w *workBuckets) doubted(tx *bbolt.Tx) (hosts []string, err error) {
	err = distrusted.eachKey(distrusted.bucket(tx), func(k []byte) error {
		h, err := w.host(string(k))
		if h.Assumed > 0 {
			hosts = append(hosts, string(k))
		}
		return err
	})
	return hosts, err
}

// Doubted returns the hosts of a job at which ends are assumed that must not be:
// the job is not done before Reopen has put their repos back and they are read.
func (s *Store) Doubted(ctx context.Context, seq uint64) (hosts []string, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err == nil {
			hosts, err = w.doubted(tx)
		}
		return err
	})
	return hosts, err
}

// Reopen puts settled repos of a job back into the queues of their hosts, to be
// read anew, whose end was assumed and must not be. It looks at a bounded number
// behind after, and returns the hosts whose queues have grown and the DID behind
// which to go on, which is empty at the end. Reopened repos stay counted as what
// they were settled as until they are settled anew.
func (s *Store) Reopen(ctx context.Context, seq uint64, after syntax.DID) (hosts []string, next syntax.DID, err error) {
	doubted, err := s.Doubted(ctx, seq)
	if err != nil || len(doubted) == 0 {
		return nil, "", err
	}
	at := make(map[string]bool, len(doubted))
	for _, host := range doubted {
		at[host] = false
	}
	list, next, err := s.JobRepos(ctx, seq, after, kv.MaxGroup, func(r JobRepo) bool {
		_, ok := at[r.Host]
		return r.Assumed && ok
	})
	if err != nil || len(list) == 0 {
		return nil, next, err
	}
	err = s.wait(ctx, change{op: "reopen repos", bytes: len(list) * rowBytes, urgent: true, apply: func(g *group) error {
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := g.reopen(j, w, r.DID); err != nil {
				return fmt.Errorf("repo %s: %w", r.DID, err)
			}
		}
		return nil
	}})
	if err != nil {
		return nil, "", err
	}
	for _, r := range list {
		at[r.Host] = true
	}
	maps.DeleteFunc(at, func(_ string, grown bool) bool { return !grown })
	return slices.Sorted(maps.Keys(at)), next, nil
}

func (g *group) reopen(j *Job, w *workBuckets, did syntax.DID) error {
	row, err := workRepos.get(w.repos, []byte(did))
	if err != nil || !row.Assumed {
		return err
	}
	if err := g.tally(j, row, -1); err != nil {
		return err
	}
	row.State, row.Assumed = RepoOwed, false
	return errors.Join(
		g.tally(j, row, 1),
		w.putOwed(Owed{DID: did, Host: row.Host, Again: true}),
		workRepos.put(w.repos, []byte(did), row))
}
