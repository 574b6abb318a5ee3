package read

import (
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/store/index"
	"appview/store/jobs"
)

// part is what was read of the repo since the last commit about it.
func (r *reading) part(segments []index.Segment) index.Reading {
	return index.Reading{Host: r.owed.Host, Rev: r.rev, Source: r.source, Segments: segments}
}

// settlement is what a repo came to that was read.
func (r *reading) settlement() jobs.Settlement {
	unclear, rejects := r.absent.unclear, r.rejects
	s := jobs.Settlement{
		DID: r.owed.DID, Reading: r.part(r.segments), Attempts: r.owed.Attempts + 1,
		Complete: r.completeCollections(), Kept: r.pass.with(Held), Confirmed: r.absent.confirmed, Floor: r.pass.first,
		Exact: r.sure == Exact, Short: r.shortPages(), Account: index.AccountActive, Rejected: int64(rejects.Count),
	}
	switch {
	case r.sure == Incomplete:
		s.Verdict = jobs.Verdict{Class: string(outcome.ClassFailed), Reason: string(outcome.ReasonIncomplete), Detail: unclear}
	case rejects.Count > 0:
		s.RejectedDetail = fmt.Sprintf("no record can be addressed by %.100q, one of %d such paths or collections", rejects.First, rejects.Count)
	}
	return s
}

// completeCollections are those that were read from end to end, with nothing in them that
// cannot be told.
func (r *reading) completeCollections() (list []syntax.NSID) {
	for c, read := range r.pass.read {
		if read.isReadToEnd() && (read.provesAbsence() || r.sure == Exact) {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}
