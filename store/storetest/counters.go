package storetest

import (
	"testing"

	"appview/store/jobs"
)

// NothingBack wants no counter of a job to be lower than it was.
func NothingBack(tb testing.TB, was, is jobs.Job) {
	tb.Helper()
	for _, c := range []struct {
		name    string
		was, is int64
	}{
		{"repos", was.TotalRepos, is.TotalRepos},
		{"processed", was.Processed, is.Processed},
		{"failed", was.Failed, is.Failed},
		{"unavailable", was.Unavailable, is.Unavailable},
		{"empty", was.Reasons["empty"], is.Reasons["empty"]},
		{"records", was.Tally.Records, is.Tally.Records},
		{"created", was.Tally.Created, is.Tally.Created},
		{"updated", was.Tally.Updated, is.Tally.Updated},
		{"deleted", was.Tally.Deleted, is.Tally.Deleted},
		{"rejected", was.Tally.Rejected, is.Tally.Rejected},
	} {
		if c.is < c.was {
			tb.Errorf("job %s: %s went back from %d to %d", is.ID, c.name, c.was, c.is)
		}
	}
}
