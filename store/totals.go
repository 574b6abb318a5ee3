package store

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"go.etcd.io/bbolt"
)

// Totals counts what all jobs there ever were have settled. Jobs are forgotten, and
// take a repo back that they read under a wrong assumption: totals are neither, so
// that they only ever grow.
type Totals struct {
	Reasons map[string]int64 `json:"reasons"` // settled repos
	Tally   Tally            `json:"tally"`   // their records
}

var totals = table[Totals]{name: "totals", version: 1, fill: fillSpread}

// totalsKey is the key of the one row there is.
const totalsKey = "settled"

// Totals returns what all jobs have settled.
func (s *Store) Totals(ctx context.Context) (t Totals, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error { t, err = totalsOf(tx); return err })
	return t, err
}

func totalsOf(tx *bbolt.Tx) (Totals, error) {
	t, err := totals.get(totals.bucket(tx), []byte(totalsKey))
	if errors.Is(err, ErrNotFound) {
		return Totals{}, nil
	}
	return t, err
}

// counted is what a job had settled when a group began to change it.
type counted struct {
	reasons map[string]int64
	tally   Tally
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
	return totals.put(totals.bucket(g.tx), []byte(totalsKey), t)
}

// addTotals counts what the jobs have settled that are known.
func addTotals(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists([]byte(totals.name)); err != nil {
		return fmt.Errorf("create bucket %s: %w", totals.name, err)
	}
	var t Totals
	err := jobs.bucket(tx).ForEach(func(k, row []byte) error {
		j, err := jobs.decode(k, row)
		if err != nil {
			return fmt.Errorf("job %x: %w", k, err)
		}
		t.add(&j, counted{})
		return nil
	})
	if err != nil {
		return err
	}
	return totals.put(totals.bucket(tx), []byte(totalsKey), t)
}
