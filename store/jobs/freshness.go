package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/kv"
)

// Freshness is what the jobs over the whole network came to in a collection, and so
// how old the index is there.
type Freshness struct {
	// SyncedAt is when the last complete job began, or the first one that it carried
	// on: what the index holds was so then or later. Zero: none was complete.
	SyncedAt    time.Time `json:"synced_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"` // when it was complete
	First       uint64    `json:"first,omitempty"`       // number of the job that began then
	After       uint64    `json:"after,omitempty"`       // jobs up to this number do not count: what they read was deleted

	Last     uint64     `json:"last,omitempty"` // number of the job that ended last, whatever came of it
	EndedAt  time.Time  `json:"ended_at,omitzero"`
	Status   api.Status `json:"status,omitempty"`
	Failures int        `json:"failures,omitempty"` // jobs that failed since one was completed
}

var freshness = kv.Table[Freshness]{Name: "freshness", Version: 1, Fill: kv.FillSpread}

// Freshness is how old the index is in a collection.
func (s *Collections) Freshness(ctx context.Context, c syntax.NSID) (Freshness, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (Freshness, error) { return freshnessOf(tx, c) })
}

func freshnessRow(tx *kv.Tx, key []byte) (Freshness, error) {
	f, err := freshness.Get(freshness.Bucket(tx), key)
	if errors.Is(err, kv.ErrNotFound) {
		return Freshness{}, nil
	}
	return f, err
}

// freshnessOf puts together what the jobs over a collection and those over all
// collections came to.
func freshnessOf(tx *kv.Tx, c syntax.NSID) (Freshness, error) {
	f, err := freshnessRow(tx, freshnessKey(c))
	if err != nil {
		return f, err
	}
	all, err := freshnessRow(tx, freshnessKey(""))
	if err != nil {
		return f, err
	}
	if all.First > max(f.First, f.After) {
		f.First, f.SyncedAt, f.CompletedAt = all.First, all.SyncedAt, all.CompletedAt
	}
	if all.Last > f.Last {
		f.Last, f.EndedAt, f.Status, f.Failures = all.Last, all.EndedAt, all.Status, all.Failures
	}
	return f, nil
}

// noteEnd notes a job that has ended in the collections that it covered. Order is
// that of creation, not of time: a clock that jumps back must not make an old index
// look fresh, nor a fresh one old.
func noteEnd(tx *kv.Tx, j *Job) error {
	if !j.Request.Network() {
		return nil
	}
	targets := j.Targets
	if len(targets) == 0 {
		targets = []syntax.NSID{""}
	}
	for _, c := range targets {
		f, err := freshnessRow(tx, freshnessKey(c))
		if err != nil {
			return err
		}
		f.Last, f.EndedAt, f.Status = j.Seq, j.CompletedAt, j.Status
		switch j.Status {
		case api.StatusFailed:
			f.Failures++
		case api.StatusCompleted:
			f.Failures = 0
			if first := j.first(); first > f.After && first >= f.First {
				f.First, f.SyncedAt, f.CompletedAt = first, j.since(), j.CompletedAt
			}
		default: // stopped because somebody wanted it
		}
		if err := freshness.Put(freshness.Bucket(tx), freshnessKey(c), f); err != nil {
			return err
		}
	}
	return nil
}

// first is the number of the job that began what this one is about.
func (j *Job) first() uint64 {
	if j.First != 0 {
		return j.First
	}
	return j.Seq
}

// since is when that began, zero if it has not.
func (j *Job) since() time.Time {
	if !j.Since.IsZero() {
		return j.Since
	}
	return j.StartedAt
}

// forgetFreshness notes that a collection's records are to be deleted: what jobs
// have read so far is no longer what the index holds.
func (g *group) forgetFreshness(c syntax.NSID) error {
	f, err := freshnessRow(g.tx, freshnessKey(c))
	if err != nil {
		return err
	}
	f.First, f.SyncedAt, f.CompletedAt, f.After = 0, time.Time{}, time.Time{}, jobs.Bucket(g.tx).Sequence()
	if err := freshness.Put(freshness.Bucket(g.tx), freshnessKey(c), f); err != nil {
		return fmt.Errorf("forget how fresh %s is: %w", c, err)
	}
	return nil
}
