package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

func TestAddedCollectionIsTrackedAndRead(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	id := uuid.New()
	job, added, err := s.Collections.AddCollection(asAdmin(t), note, id)
	if err != nil || !added || job == nil || job.ID != id || job.Origin != api.OriginRequest || job.Request.Collection != note {
		t.Fatalf("%+v, %t, %v", job, added, err)
	}
	again, added, err := s.Collections.AddCollection(asAdmin(t), note, uuid.New())
	if err != nil || added || again == nil || again.ID != id {
		t.Errorf("again: %+v, %t, %v", again, added, err)
	}
	list, err := s.Collections.List(t.Context())
	if err != nil || len(list) != 1 || list[0].NSID != note || list[0].Since.IsZero() || list[0].Job.ID != id || !list[0].Covered {
		t.Errorf("collections: %+v, %v", list, err)
	}
	if _, err := s.Jobs.MoveJob(t.Context(), id, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Jobs.FinishJob(t.Context(), job.Seq, none); err != nil {
		t.Fatal(err)
	}
	if none, added, err := s.Collections.AddCollection(asAdmin(t), note, uuid.New()); err != nil || added || none != nil {
		t.Errorf("when no job runs: %+v, %t, %v", none, added, err)
	}
	if list, err = s.Collections.List(t.Context()); err != nil || list[0].Job.ID != id || list[0].Covered {
		t.Errorf("collections: %+v, %v", list, err)
	}
	wantAudit(t, s, "collection:add com.example.note () done", "backfill:create "+id.String()+" (com.example.note of every repo) done")
}

func TestOfManyWhoAddACollectionOneMakesItsJob(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	var wg sync.WaitGroup
	made := make([]bool, 20)
	for i := range made {
		wg.Go(func() {
			var err error
			if _, made[i], err = s.Collections.AddCollection(t.Context(), note, uuid.New()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, m := range made {
		if m {
			n++
		}
	}
	if jobs, err := s.Jobs.List(t.Context()); err != nil || n != 1 || len(jobs) != 1 {
		t.Errorf("%d added it, %d jobs, %v", n, len(jobs), err)
	}
}

func TestAddedCollectionTakesTheJobThatReadsItAlready(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	everything := newJob(t, s, nil)
	if _, err := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{Collection: note, DID: alice}, nil); err != nil {
		t.Fatal(err)
	}
	if job, added, err := s.Collections.AddCollection(t.Context(), note, uuid.New()); err != nil || !added || job.ID != everything.ID {
		t.Errorf("%+v, %t, %v", job, added, err)
	}
}

func TestCollectionIsCoveredByOneJobAtATime(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	cover := func(last uint64) (jobs.Job, error) {
		return w.s.Collections.CoverCollection(t.Context(), note, uuid.New(), api.OriginRefresh, last)
	}
	if _, err := cover(0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("not tracked: %v", err)
	}
	if err := w.s.Collections.Track(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { _, errs[i] = cover(0) })
	}
	wg.Wait()
	busy := 0
	for _, err := range errs {
		if errors.Is(err, jobs.ErrBusy) {
			busy++
		} else if err != nil {
			t.Error(err)
		}
	}
	list, err := w.s.Jobs.Unfinished(t.Context())
	if err != nil || busy != len(errs)-1 || len(list) != 1 || list[0].Origin != api.OriginRefresh {
		t.Fatalf("%d were told that it is covered, %d jobs, %v", busy, len(list), err)
	}
	w.end(list[0], 1, "the relay is down")
	if _, err := cover(0); !errors.Is(err, jobs.ErrStale) {
		t.Errorf("by whoever has not seen its end: %v", err)
	}
	if _, err := cover(list[0].Seq); err != nil {
		t.Errorf("by whoever has: %v", err)
	}
}

func TestCollectionThatAJobReadsIsNotRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		req  jobs.Request
		busy bool
	}{
		"its own":                  {jobs.Request{Collection: note}, true},
		"of one repo":              {jobs.Request{Collection: note, DID: alice}, true},
		"of all collections":       {jobs.Request{}, true},
		"of another":               {jobs.Request{Collection: other}, false},
		"of another, of one repo":  {jobs.Request{Collection: other, DID: alice}, false},
		"of all that were tracked": {jobs.Request{DIDs: []syntax.DID{alice, bob}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStoreWorld(t)
			if err := w.s.Collections.Track(t.Context(), note); err != nil {
				t.Fatal(err)
			}
			job := w.begin(c.req, 0, 0)
			for _, records := range []bool{false, true} {
				_, err := w.s.Collections.RemoveCollection(asAdmin(t), note, records)
				if c.busy != errors.Is(err, jobs.ErrBusy) && (c.busy || !records) {
					t.Errorf("records deleted %t: %v", records, err)
				}
			}
			if !c.busy {
				return
			}
			wantAudit(t, w.s)
			w.end(job, 1, "")
			if _, err := w.s.Collections.RemoveCollection(asAdmin(t), note, false); err != nil {
				t.Errorf("when the job has ended: %v", err)
			}
			wantAudit(t, w.s, "collection:remove com.example.note (its records are kept) done")
		})
	}
}

func TestRemovedCollectionKeepsOrLosesItsRecords(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")), segment(other, listed(t, "a", "1")))
	if err := errors.Join(s.Work.EndDiscovery(t.Context(), b.job.Seq, ""), s.Collections.Track(t.Context(), note), s.Collections.Track(t.Context(), other)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Jobs.FinishJob(t.Context(), b.job.Seq, none); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Collections.RemoveCollection(asAdmin(t), other, false); err != nil || n != 0 {
		t.Errorf("deleted %d, %v", n, err)
	}
	wantRecords(t, s, 3)
	if n, err := s.Collections.RemoveCollection(asAdmin(t), note, true); err != nil || n != 2 {
		t.Errorf("deleted %d, %v", n, err)
	}
	wantRecords(t, s, 1)
	if _, err := s.Collections.RemoveCollection(asAdmin(t), note, true); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if f, err := s.Collections.Freshness(t.Context(), other); err != nil || f.SyncedAt.IsZero() {
		t.Errorf("what was kept: %+v, %v", f, err)
	}
	if f, err := s.Collections.Freshness(t.Context(), note); err != nil || !f.SyncedAt.IsZero() {
		t.Errorf("what was deleted: %+v, %v", f, err)
	}
	wantAudit(t, s,
		"collection:remove com.example.other (its records are kept) done",
		"collection:remove com.example.note (its records are deleted) done",
		"records:delete com.example.note (2 records deleted) done",
	)
}

func TestTrackedCollectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	var wg sync.WaitGroup
	for i := range 1_000 {
		wg.Go(func() {
			if err := s.Collections.Track(t.Context(), syntax.NSID(fmt.Sprintf("com.example.c%d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, _, err := s.Collections.AddCollection(t.Context(), note, uuid.New()); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	if jobs, err := s.Jobs.List(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
}
