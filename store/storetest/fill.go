package storetest

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

const (
	// fillHost is where all repos of Fill live, and fillRev what they are at.
	fillHost = "https://pds.test"
	fillRev  = syntax.TID("3lzzzzzzzzz22")
	// fillPage is how many repos are discovered at once.
	fillPage = 1000
)

// Job makes a job that is worked on.
func Job(tb testing.TB, s *store.Store, targets ...syntax.NSID) jobs.Job {
	tb.Helper()
	job, err := s.Jobs.CreateJob(tb.Context(), uuid.New(), jobs.Request{}, targets)
	if err == nil {
		job, err = s.Jobs.StartJob(tb.Context(), job.Seq)
	}
	if err != nil {
		tb.Fatalf("create job: %v", err)
	}
	return job
}

// Fill has a job discover repos, look them up, and settle each with the records of
// one collection that are given for it: all that a backfill writes. It returns when
// everything is committed.
func Fill(tb testing.TB, s *store.Store, job jobs.Job, collection syntax.NSID, dids []syntax.DID, records func(i int) []index.Listed) {
	tb.Helper()
	ctx, failed := tb.Context(), make(chan error, 1)
	done := func(err error) {
		if err != nil {
			select {
			case failed <- err:
			default: // one is enough
			}
		}
	}
	for i, did := range dids {
		if i%fillPage == 0 {
			page := jobs.Discovery{Listing: "fill", DIDs: dids[i:min(i+fillPage, len(dids))]}
			if _, err := s.Work.Discover(ctx, job.Seq, page); err != nil {
				tb.Fatal(err)
			}
		}
		if err := s.Work.Rehost(ctx, job.Seq, did, "", fillHost, done); err != nil {
			tb.Fatal(err)
		}
		err := s.Work.Settle(ctx, job.Seq, jobs.Settlement{
			DID: did, Account: index.AccountActive, Complete: []syntax.NSID{collection}, Floor: fillRev, Exact: true,
			Reading: index.Reading{
				Host: fillHost, Rev: fillRev, Source: index.SourceListRecords,
				Segments: []index.Segment{{Collection: collection, Records: records(i)}},
			},
			Verdict: jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"},
		}, done)
		if err != nil {
			tb.Fatal(err)
		}
	}
	// Changes are made in their order: this one waits for all others.
	if err := s.Work.EndDiscovery(ctx, job.Seq, ""); err != nil {
		tb.Fatal(err)
	}
	select {
	case err := <-failed:
		tb.Fatal(err)
	default:
	}
}

// FillDID is the nth of DIDs that come in no order.
func FillDID(n int) syntax.DID { return syntax.DID("did:plc:" + spread(n)) }

// spread is a number of 24 digits that jumps about as n grows.
func spread(n int) string {
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	x, out := uint64(n)*0x9E3779B97F4A7C15, make([]byte, 24)
	for i := range out {
		out[i] = digits[x>>(i*5%60)&31]
	}
	return string(out)
}
