package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"appview/store/index"
	"appview/store/kv"
)

// group is one transaction of the writer, with the rows that many changes touch.
// They live no longer than the transaction.
type group struct {
	tx *kv.Tx

	jobs    map[uint64]*Job
	counted map[uint64]counted // of jobs, before the group changed them
	work    map[uint64]*workBuckets
}

// groups are the groups of transactions.
var groups = kv.Local[group]{Begin: newGroup, Save: (*group).save}

func newGroup(tx *kv.Tx) (*group, error) {
	return &group{tx: tx, jobs: map[uint64]*Job{}, counted: map[uint64]counted{}, work: map[uint64]*workBuckets{}}, nil
}

// job returns the row of a job for change; it is written when the group ends.
func (g *group) job(seq uint64) (*Job, error) {
	if j := g.jobs[seq]; j != nil {
		return j, nil
	}
	j, err := jobs.Get(jobs.Bucket(g.tx), kv.NumberKey(seq))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, kv.Refuse(fmt.Errorf("job %d: %w", seq, kv.ErrNotFound))
	}
	if err != nil {
		return nil, err
	}
	g.jobs[seq], g.counted[seq] = &j, countedOf(&j)
	return &j, nil
}

// save writes the rows that the group has gathered.
func (g *group) save() error {
	err := g.saveTotals()
	for _, seq := range slices.Sorted(maps.Keys(g.jobs)) {
		j := g.jobs[seq]
		err = errors.Join(err, jobs.Put(jobs.Bucket(g.tx), kv.NumberKey(seq), *j), g.keepUnfinished(j))
	}
	for _, w := range g.work {
		for host, h := range w.changed {
			err = errors.Join(err, hostRows.Put(w.hosts, []byte(host), *h))
		}
	}
	return err
}

// file is the open file, with what is below the jobs in it.
type file struct {
	db    *kv.DB
	index *index.Index
}

// write makes a change and returns its result when it is committed.
func write[T any](ctx context.Context, f file, c kv.Change, apply func(*group) (T, error)) (T, error) {
	return kv.Write(ctx, f.db, c, func(tx *kv.Tx) (T, error) {
		g, err := groups.In(tx)
		if err != nil {
			var none T
			return none, err
		}
		return apply(g)
	})
}

// do makes a change without a result.
func (f file) do(ctx context.Context, c kv.Change, apply func(*group) error) error {
	c.Apply = inGroup(apply)
	return f.db.Do(ctx, c)
}

// submit queues a change: see kv.DB.Submit.
func (f file) submit(ctx context.Context, c kv.Change, apply func(*group) error) error {
	c.Apply = inGroup(apply)
	return f.db.Submit(ctx, c)
}

func inGroup(apply func(*group) error) func(*kv.Tx) error {
	return func(tx *kv.Tx) error {
		g, err := groups.In(tx)
		if err != nil {
			return err
		}
		return apply(g)
	}
}

// urgent is a change that commits at once, and interactive one that a user waits for besides.
func urgent(op string) kv.Change      { return kv.Change{Op: op, Urgent: true} }
func interactive(op string) kv.Change { return kv.Change{Op: op, Urgent: true, Interactive: true} }
