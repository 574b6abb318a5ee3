package store_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// world is a store whose clock is set by hand.
type world struct {
	t   *testing.T
	s   *store.Store
	cfg store.Config
	now atomic.Pointer[time.Time]
}

func newStoreWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.at(0)
	w.cfg = store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Now: func() time.Time { return *w.now.Load() }}
	w.s = storetest.OpenConfig(t, w.cfg)
	return w
}

// moment is a number of hours after the world began.
func moment(hours int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(hours) * time.Hour)
}

// at sets the clock.
func (w *world) at(hours int) {
	now := moment(hours)
	w.now.Store(&now)
}

// begin creates a job and starts it, each at its hour.
func (w *world) begin(req jobs.Request, created, started int) jobs.Job {
	w.t.Helper()
	w.at(created)
	job, err := w.s.Jobs.CreateJob(w.t.Context(), uuid.New(), req, nil)
	if err == nil {
		w.at(started)
		job, err = w.s.Jobs.StartJob(w.t.Context(), job.Seq)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return job
}

// end ends a job at an hour. Without a reason it is complete.
func (w *world) end(job jobs.Job, hours int, reason string) {
	w.t.Helper()
	w.at(hours)
	err := w.s.Work.EndDiscovery(w.t.Context(), job.Seq, reason)
	if err == nil {
		_, err = w.s.Jobs.FinishJob(w.t.Context(), job.Seq, none)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fresh(c syntax.NSID) jobs.Freshness {
	w.t.Helper()
	f, err := w.s.Collections.Freshness(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// want wants a collection to be as old as its last complete job, which began at an
// hour; -1: none did.
func (w *world) want(c syntax.NSID, hours int) {
	w.t.Helper()
	want := time.Time{}
	if hours >= 0 {
		want = moment(hours)
	}
	if got := w.fresh(c).SyncedAt; !got.Equal(want) {
		w.t.Errorf("%s is as of %s, want %s", c, got, want)
	}
}

func TestCollectionIsAsOldAsTheStartOfItsLastCompleteJob(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.want(note, -1)
	first := w.begin(jobs.Request{Collection: note}, 1, 2)
	w.want(note, -1)
	w.end(first, 5, "")
	w.want(note, 2)
	w.want(other, -1)
	w.end(w.begin(jobs.Request{DID: alice, Collection: note}, 6, 6), 7, "") // says nothing of the network
	w.want(note, 2)
	w.end(w.begin(jobs.Request{Collection: note}, 8, 8), 9, "the relay is down")
	w.want(note, 2)
	if f := w.fresh(note); f.Failures != 1 || f.Status != api.StatusFailed || !f.EndedAt.Equal(moment(9)) {
		t.Errorf("after a failure: %+v", f)
	}
	cancelled := w.begin(jobs.Request{Collection: note}, 10, 10)
	if _, err := w.s.Jobs.MoveJob(t.Context(), cancelled.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	w.end(cancelled, 11, "")
	w.want(note, 2)
	if f := w.fresh(note); f.Failures != 1 || f.Status != api.StatusCancelled || f.Last != cancelled.Seq {
		t.Errorf("after one that was cancelled: %+v", f)
	}
	w.end(w.begin(jobs.Request{}, 12, 13), 14, "") // everything
	w.want(note, 13)
	w.want(other, 13)
	if f := w.fresh(note); f.Failures != 0 || f.Status != api.StatusCompleted {
		t.Errorf("after one over everything: %+v", f)
	}
	w.end(w.begin(jobs.Request{Collection: note}, 15, 15), 16, "")
	w.want(note, 15)
	w.want(other, 13)
}

// TestJobThatCarriesOnIsAsOldAsWhatItCarriesOn: what the first job read is as old as
// that, whenever the rest was read.
func TestJobThatCarriesOnIsAsOldAsWhatItCarriesOn(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	failed := w.begin(jobs.Request{Collection: note}, 1, 2)
	w.end(failed, 3, "the relay is down")
	retry := func(of jobs.Job, hours int) jobs.Job {
		t.Helper()
		w.at(hours)
		job, err := w.s.Jobs.RetryJob(t.Context(), of.ID, uuid.New())
		if err == nil {
			job, err = w.s.Jobs.StartJob(t.Context(), job.Seq)
		}
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	again := retry(failed, 4)
	w.end(again, 5, "the relay is down")
	w.want(note, -1)
	third := retry(again, 6)
	w.end(third, 7, "")
	w.want(note, 2)
	// A job in between is younger than what an older one, carried on, comes to.
	w.end(w.begin(jobs.Request{Collection: note}, 8, 8), 9, "")
	w.want(note, 8)
	w.end(retry(failed, 10), 11, "")
	w.want(note, 8)
}

func TestDeletedCollectionIsNotFresh(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.end(w.begin(jobs.Request{Collection: note}, 1, 1), 2, "")
	w.end(w.begin(jobs.Request{}, 3, 3), 4, "")
	running := w.begin(jobs.Request{Collection: note}, 5, 5)
	if _, err := w.s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note, DID: alice}); err != nil {
		t.Fatal(err)
	}
	w.want(note, 3)
	if _, err := w.s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note}); err != nil {
		t.Fatal(err)
	}
	w.want(note, -1)
	w.want(other, 3)
	w.end(running, 6, "") // what it had read when they were deleted is gone
	w.want(note, -1)
	w.end(w.begin(jobs.Request{Collection: note}, 7, 7), 8, "")
	w.want(note, 7)
}

func TestClockThatJumpsBackMakesNothingFresher(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.end(w.begin(jobs.Request{Collection: note}, 9000, 9000), 9001, "")
	w.want(note, 9000)
	w.end(w.begin(jobs.Request{Collection: note}, 10, 10), 11, "") // the later one
	w.want(note, 10)
}

func TestJobsThatAreNotFinalAreFound(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	want := func(jobs ...jobs.Job) {
		t.Helper()
		list, err := w.s.Jobs.Unfinished(t.Context())
		if err != nil || len(list) != len(jobs) {
			t.Fatalf("%d unfinished jobs, want %d: %v", len(list), len(jobs), err)
		}
		for i, j := range jobs {
			if list[i].ID != j.ID {
				t.Errorf("number %d is %s", i, list[i].ID)
			}
		}
	}
	want()
	a, b := w.begin(jobs.Request{Collection: note}, 1, 1), w.begin(jobs.Request{DID: alice}, 1, 1)
	want(a, b)
	if _, err := w.s.Jobs.MoveJob(t.Context(), a.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	want(a, b)
	w.end(a, 2, "")
	want(b)
	w.end(b, 2, "")
	want()
}

// TestOlderFileLearnsHowFreshItIs takes from a file what earlier versions did not
// write, and lets the migration find it out.
func TestOlderFileLearnsHowFreshItIs(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.end(w.begin(jobs.Request{Collection: note}, 1, 2), 3, "")
	failed := w.begin(jobs.Request{Collection: other}, 4, 5)
	w.end(failed, 6, "the relay is down")
	w.at(7)
	retry, err := w.s.Jobs.RetryJob(t.Context(), failed.ID, uuid.New())
	if err == nil {
		retry, err = w.s.Jobs.StartJob(t.Context(), retry.Seq)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.end(retry, 8, "")
	running := w.begin(jobs.Request{Collection: note}, 9, 9)
	wantFresh := map[syntax.NSID]jobs.Freshness{note: w.fresh(note), other: w.fresh(other)}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(w.cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		const older = 2 // the schema before there was any of these
		return errors.Join(
			tx.DeleteBucket([]byte("audit")), tx.DeleteBucket([]byte("unfinished")), tx.DeleteBucket([]byte("freshness")),
			tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, older)),
		)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Config{Path: w.cfg.Path, ReadOnly: true}); !errors.Is(err, store.ErrOlder) {
		t.Errorf("before the migration: %v", err)
	}
	w.s = storetest.OpenConfig(t, w.cfg)
	for c, want := range wantFresh {
		if got := w.fresh(c); got != want {
			t.Errorf("%s: %+v, want %+v", c, got, want)
		}
	}
	if list, err := w.s.Jobs.Unfinished(t.Context()); err != nil || len(list) != 1 || list[0].ID != running.ID {
		t.Errorf("unfinished: %+v, %v", list, err)
	}
	wantAudit(t, w.s)
}
