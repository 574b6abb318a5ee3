package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/kv"
)

// check checks all rows.
func check(ctx context.Context, c *kv.Checker) error {
	for _, part := range []func(context.Context, *kv.Checker) error{checkJobs, checkUnfinished, checkReplies} {
		if err := part(ctx, c); err != nil {
			return err
		}
	}
	kv.CheckTable(c, collections)
	kv.CheckTable(c, distrusted)
	kv.CheckTable(c, freshness)
	kv.CheckTable(c, pauses)
	kv.CheckTable(c, totals)
	return ctx.Err()
}

func checkJobs(ctx context.Context, c *kv.Checker) error {
	ids, n := c.Tx.Bucket([]byte(jobIDsBucket)), 0
	err := jobs.Bucket(c.Tx).ForEach(func(k, row []byte) error {
		n++
		j, err := jobs.Decode(k, row)
		if err != nil {
			c.Found("job %x: %w", k, err)
			return nil
		}
		if !bytes.Equal(ids.Get(j.ID[:]), k) || !bytes.Equal(kv.NumberKey(j.Seq), k) {
			c.Found("job %s: job_ids does not lead to it", j.ID)
		}
		checkJob(c, j)
		return ctx.Err()
	})
	if got := ids.Stats().KeyN; got != n {
		c.Found("job_ids has %d rows, jobs %d", got, n)
	}
	work := c.Tx.Bucket([]byte(workBucket)).Cursor()
	for k, _ := work.First(); k != nil; k, _ = work.Next() {
		if jobs.Bucket(c.Tx).Get(k) == nil {
			c.Found("work %x belongs to no job", k)
		}
	}
	return err
}

// checkJob checks a job's counters against its work rows, and these against its queue.
func checkJob(c *kv.Checker, j Job) {
	w, err := workOf(c.Tx, j.Seq)
	if errors.Is(err, kv.ErrNotFound) && j.Status.Final() {
		return // forgotten
	}
	if err != nil {
		c.Found("job %s: %w", j.ID, err)
		return
	}
	var sum Job
	owed, hosts := int64(0), map[string]HostWork{}
	err = w.repos.ForEach(func(did, row []byte) error {
		r, err := workRepos.Decode(did, row)
		if err != nil {
			return fmt.Errorf("repo %s: %w", did, err)
		}
		sum.TotalRepos++
		sum.count(r, 1)
		if r.Host != "" {
			h := hosts[r.Host]
			h.count(r, 1)
			hosts[r.Host] = h
		}
		if r.State == RepoSettled {
			return nil
		}
		owed++
		if r.Host == "" {
			sum.Unresolved++
		}
		o, err := owedRows.Get(w.owed, owedKey(r.Host, syntax.DID(did)))
		if err != nil || o.Again != (r.Class != "") || r.Assumed {
			c.Found("job %s: %s is %s, but not in the queue of %q as that: %+v, %w", j.ID, did, r.State, r.Host, o, err)
		}
		return nil
	})
	if err != nil {
		c.Found("job %s: %w", j.ID, err)
		return
	}
	err = w.hosts.ForEach(func(k, row []byte) error {
		h, err := hostRows.Decode(k, row)
		if err != nil {
			return fmt.Errorf("host %s: %w", k, err)
		}
		h.Ends, h.LongestEnd, h.Behaviour = 0, 0, Behaviour{}
		if want := hosts[string(k)]; h != want {
			c.Found("job %s: host %s: %+v, its repos add up to %+v", j.ID, k, h, want)
		}
		delete(hosts, string(k))
		return nil
	})
	for host := range hosts {
		c.Found("job %s: host %s has repos and no row", j.ID, host)
	}
	if err != nil {
		c.Found("job %s: %w", j.ID, err)
		return
	}
	kv.CheckBucket(c, cursors, w.cursors)
	if err := w.marks.Check(); err != nil {
		c.Found("job %s: %w", j.ID, err)
	}
	if got := int64(w.owed.Stats().KeyN); got != owed {
		c.Found("job %s: %d repos in queues, %d owed", j.ID, got, owed)
	}
	if sum.TotalRepos != j.TotalRepos || sum.Processed != j.Processed || sum.Unresolved != j.Unresolved ||
		sum.Failed != j.Failed || sum.Unavailable != j.Unavailable || sum.Tally != j.Tally || sum.Reopened != j.Reopened {
		c.Found("job %s: counters %+v, its repos add up to %+v", j.ID, j, sum)
	}
	if !maps.Equal(sum.Reasons, j.Reasons) {
		c.Found("job %s: repos by reason are %v, found %v", j.ID, j.Reasons, sum.Reasons)
	}
	if (j.Status == api.StatusCompleted || j.Status == api.StatusFailed) && !j.Done() {
		c.Found("job %s is %s, but owes work: %+v", j.ID, j.Status, j)
	}
}
