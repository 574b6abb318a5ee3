package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"appview/store/index"
	"appview/store/kv"
)

// Totals counts what all jobs there ever were have settled. Jobs are forgotten, and
// take a repo back that they read under a wrong assumption: totals are neither, so
// that they only ever grow.
type Totals struct {
	Reasons map[string]int64 `json:"reasons"` // settled repos
	Tally   index.Tally      `json:"tally"`   // their records
}

var totals = kv.Table[Totals]{Name: "totals", Version: 1, Fill: kv.FillSpread}

// totalsKey is the key of the one row there is.
const totalsKey = "settled"

// Totals returns what all jobs have settled.
func (s *Jobs) Totals(ctx context.Context) (Totals, error) {
	return kv.Read(ctx, s.db, totalsOf)
}

func totalsOf(tx *kv.Tx) (Totals, error) {
	t, err := totals.Get(totals.Bucket(tx), []byte(totalsKey))
	if errors.Is(err, kv.ErrNotFound) {
		return Totals{}, nil
	}
	return t, err
}

// counted is what a job had settled when a group began to change it.
type counted struct {
	reasons map[string]int64
	tally   index.Tally
}

func countedOf(j *Job) counted { return counted{maps.Clone(j.Reasons), j.Tally} }

// add adds what a job has settled since, and reports whether that is anything.
func (t *Totals) add(j *Job, since counted) bool {
	changed := false
	grow := func(total *int64, now, before int64) {
		if now > before {
			*total += now - before
			changed = true
		}
	}
	for reason, n := range j.Reasons {
		total := t.Reasons[reason]
		grow(&total, n, since.reasons[reason])
		if total > 0 {
			if t.Reasons == nil {
				t.Reasons = map[string]int64{}
			}
			t.Reasons[reason] = total
		}
	}
	grow(&t.Tally.Records, j.Tally.Records, since.tally.Records)
	grow(&t.Tally.Created, j.Tally.Created, since.tally.Created)
	grow(&t.Tally.Updated, j.Tally.Updated, since.tally.Updated)
	grow(&t.Tally.Deleted, j.Tally.Deleted, since.tally.Deleted)
	grow(&t.Tally.Rejected, j.Tally.Rejected, since.tally.Rejected)
	return changed
}

// saveTotals adds what the group's jobs have settled in it.
func (g *group) saveTotals() error {
	t, err := totalsOf(g.tx)
	if err != nil {
		return err
	}
	changed := false
	for seq, j := range g.jobs {
		changed = t.add(j, g.counted[seq]) || changed
	}
	if !changed {
		return nil
	}
	return totals.Put(totals.Bucket(g.tx), []byte(totalsKey), t)
}

// addTotals counts what the jobs have settled that are known.
func addTotals(tx *kv.Tx) error {
	if err := kv.MakeBuckets(tx, totals.Name); err != nil {
		return err
	}
	var t Totals
	err := jobs.Bucket(tx).ForEach(func(k, row []byte) error {
		j, err := jobs.Decode(k, row)
		if err != nil {
			return fmt.Errorf("job %x: %w", k, err)
		}
		t.add(&j, counted{})
		return nil
	})
	if err != nil {
		return err
	}
	return totals.Put(totals.Bucket(tx), []byte(totalsKey), t)
}
