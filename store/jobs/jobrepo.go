package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// JobRepo is where one repo of a job stands.
type JobRepo struct {
	DID         syntax.DID
	Host        string
	State       RepoState
	Class       string // of a settled one
	Reason      string // of its class, or of the last failed attempt
	Detail      string
	Attempts    int
	NextAttempt time.Time // of one that is owed; zero: as soon as may be
	Records     int64
	Rejected    int64
	Rev         syntax.TID
	Assumed     bool // a short page was taken for the end of a listing, or Unprobed
	Unprobed    bool // its host gave the repo, and was not asked for the account's status
}

// jobReposScan bounds the rows that one call of JobRepos looks at.
const jobReposScan = 10_000

// JobRepos returns up to limit repos of a job that want chooses, in DID order,
// behind after. next is the DID behind which the following page starts, empty at
// the end; a page may be short without being the last. It fails with kv.ErrNotFound
// when the job's repos are forgotten.
func (s *Jobs) JobRepos(ctx context.Context, seq uint64, after syntax.DID, limit int, want func(JobRepo) bool) (list []JobRepo, next syntax.DID, err error) {
	return s.jobRepos(ctx, seq, after, limit, want)
}

func (f file) jobRepos(ctx context.Context, seq uint64, after syntax.DID, limit int, want func(JobRepo) bool) (list []JobRepo, next syntax.DID, err error) {
	err = f.db.View(ctx, func(tx *kv.Tx) error {
		w, err := workOf(tx, seq)
		if err != nil {
			return err
		}
		c := w.repos.Cursor()
		k, row := c.Seek([]byte(after))
		if after != "" && string(k) == string(after) {
			k, row = c.Next()
		}
		for looked := 0; k != nil; k, row = c.Next() {
			if len(list) == limit || looked == jobReposScan {
				next = after
				return nil
			}
			looked++
			after = syntax.DID(k)
			r, err := w.jobRepo(after, k, row)
			if err != nil {
				return err
			}
			if want == nil || want(r) {
				list = append(list, r)
			}
		}
		return nil
	})
	return list, next, err
}

func (w *workBuckets) jobRepo(did syntax.DID, key, row []byte) (JobRepo, error) {
	r, err := workRepos.Decode(key, row)
	if err != nil {
		return JobRepo{}, fmt.Errorf("repo %s: %w", did, err)
	}
	j := JobRepo{
		DID: did, Host: r.Host, State: r.State, Class: r.Class, Reason: r.Reason, Detail: r.Detail,
		Attempts: r.Attempts, Records: r.Tally.Records, Rejected: r.Tally.Rejected, Rev: r.Rev, Assumed: r.Assumed, Unprobed: r.Unprobed,
	}
	if r.State == RepoSettled {
		return j, nil
	}
	o, err := owedRows.Get(w.owed, owedKey(r.Host, did))
	if errors.Is(err, kv.ErrNotFound) {
		return j, fmt.Errorf("%w: repo %s is owed and in no queue", kv.ErrRow, did)
	}
	j.Reason, j.Detail, j.Attempts, j.NextAttempt = o.Reason, o.Detail, o.Attempts, o.NotBefore
	return j, err
}

// JobHost is what a job has to do with one host.
type JobHost struct {
	Host string
	HostWork
}

// JobHosts returns the hosts of a job, that with most repos first. It fails with
// kv.ErrNotFound when the job's work is forgotten.
func (s *Jobs) JobHosts(ctx context.Context, seq uint64) ([]JobHost, error) {
	list, err := kv.Read(ctx, s.db, func(tx *kv.Tx) (list []JobHost, err error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return nil, err
		}
		err = w.hosts.ForEach(func(k, row []byte) error {
			h, err := hostRows.Decode(k, row)
			if err != nil {
				return fmt.Errorf("host %s: %w", k, err)
			}
			list = append(list, JobHost{Host: string(k), HostWork: h})
			return nil
		})
		return list, err
	})
	slices.SortFunc(list, func(a, b JobHost) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Host, b.Host))
	})
	return list, err
}
