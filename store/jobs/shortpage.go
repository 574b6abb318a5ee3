package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/kv"
)

// ShortPages is what a reading has shown about pages that were not full and had a
// cursor all the same.
type ShortPages struct {
	Assumed []syntax.NSID // where one was taken for the end without a look
	Ends    []int         // records on those that were followed and were the end
	More    bool          // one that was followed had more behind it; or a repo was given of an account that its host says is not active

	// Unprobed says that an account was taken for active since its host gave the repo.
	Unprobed bool
}

// distrust is the row of a host of which something was assumed that has turned out wrong:
// that its short pages are the end of its listings, or that it gives the repos of active
// accounts only. It is there for good, and for every job.
type distrust struct {
	At time.Time `json:"at"`
}

var distrusted = kv.Table[distrust]{Name: "distrusted", Version: 1, Fill: kv.FillSpread}

// Distrusted reports whether a host is to be asked for what is assumed of others: that a
// short page is the end of its listing, and that the account is active whose repo is given.
func (s *Work) Distrusted(ctx context.Context, host string) (bool, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (bool, error) { return isDistrusted(tx, host), nil })
}

func isDistrusted(tx *kv.Tx, host string) bool { return distrusted.Bucket(tx).Get([]byte(host)) != nil }

// MayEnd reports whether a short page of a host, at the end of seg, may be taken for the
// end of the listing of a repo's collection: the host is not distrusted, and the index
// holds nothing that neither seg nor earlier steps of the job have listed. That might
// stand behind the page, in whatever order the host lists, and would be deleted.
func (s *Work) MayEnd(ctx context.Context, seq uint64, host string, did syntax.DID, seg index.Segment) (bool, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (bool, error) {
		w, err := workOf(tx, seq)
		if err != nil || isDistrusted(tx, host) {
			return false, err
		}
		behind, err := index.Unlisted(tx, w.marks, did, seg, 1)
		return len(behind) == 0, err
	})
}

// Unlisted returns up to limit keys of records that the index holds of a repo's
// collection and that were not listed: not by earlier steps of the job, and not by seg.
func (s *Work) Unlisted(ctx context.Context, seq uint64, did syntax.DID, seg index.Segment, limit int) ([]syntax.RecordKey, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) ([]syntax.RecordKey, error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return nil, err
		}
		return index.Unlisted(tx, w.marks, did, seg, limit)
	})
}

// Kept returns the collections of a repo in which the index holds just what there is as
// long as this is its rev: a job that finds it so at a host need not list them.
func (s *Work) Kept(ctx context.Context, host string, did syntax.DID, rev syntax.TID) ([]syntax.NSID, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) ([]syntax.NSID, error) {
		return index.UnchangedSince(tx, did, host, rev, isDistrusted(tx, host))
	})
}

// recordHostBehaviour notes what a settlement has shown about the short pages of its host.
func (g *group) recordHostBehaviour(j *Job, t Settlement) error {
	if t.Short.More {
		b := distrusted.Bucket(g.tx)
		if isDistrusted(g.tx, t.Reading.Host) {
			return nil
		}
		return distrusted.Put(b, []byte(t.Reading.Host), distrust{At: g.tx.Now})
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
func (w *workBuckets) doubted(tx *kv.Tx) (hosts []string, err error) {
	err = distrusted.EachKey(distrusted.Bucket(tx), func(k []byte) error {
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
func (s *Work) Doubted(ctx context.Context, seq uint64) ([]string, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) ([]string, error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return nil, err
		}
		return w.doubted(tx)
	})
}

// Reopen puts settled repos of a job back into the queues of their hosts, to be
// read anew, whose end was assumed and must not be. It looks at a bounded number
// behind after, and returns the hosts whose queues have grown and the DID behind
// which to go on, which is empty at the end. Reopened repos stay counted as what
// they were settled as until they are settled anew.
func (s *Work) Reopen(ctx context.Context, seq uint64, after syntax.DID) (hosts []string, next syntax.DID, err error) {
	doubted, err := s.Doubted(ctx, seq)
	if err != nil || len(doubted) == 0 {
		return nil, "", err
	}
	at := make(map[string]bool, len(doubted))
	for _, host := range doubted {
		at[host] = false
	}
	list, next, err := s.jobRepos(ctx, seq, after, kv.MaxGroup, func(r JobRepo) bool {
		_, ok := at[r.Host]
		return r.Assumed && ok
	})
	if err != nil || len(list) == 0 {
		return nil, next, err
	}
	err = s.do(ctx, kv.Change{Op: "reopen repos", Bytes: len(list) * rowBytes, Urgent: true}, func(g *group) error {
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
	})
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
	row, err := workRepos.Get(w.repos, []byte(did))
	if err != nil || !row.Assumed {
		return err
	}
	if err := g.tally(j, row, -1); err != nil {
		return err
	}
	row.State, row.Assumed, row.Unprobed = RepoOwed, false, false
	return errors.Join(
		g.tally(j, row, 1),
		w.putOwed(Owed{DID: did, Host: row.Host, Again: true}),
		workRepos.Put(w.repos, []byte(did), row))
}
