package store_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

func (w *world) prune() {
	w.t.Helper()
	for done := false; !done; {
		var err error
		if done, err = w.s.Prune(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// kept wants exactly these jobs to be there.
func (w *world) kept(want ...jobs.Job) {
	w.t.Helper()
	list, err := w.s.Jobs.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[uuid.UUID]bool{}
	for _, j := range list {
		got[j.ID] = true
	}
	for i, j := range want {
		if !got[j.ID] {
			w.t.Errorf("job %d of those that are to be kept is forgotten", i)
		}
		if _, err := w.s.Jobs.Job(w.t.Context(), j.ID); err != nil {
			w.t.Errorf("job %d: %v", i, err)
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("%d jobs are kept, want %d", len(got), len(want))
	}
}

// refreshed runs a job of the schedule over the collection note, which is tracked.
func (w *world) refreshed(hours int) jobs.Job {
	w.t.Helper()
	w.at(hours)
	job, err := w.s.Collections.CoverCollection(w.t.Context(), note, uuid.New(), api.OriginRefresh, w.fresh(note).Last)
	if err == nil {
		job, err = w.s.Jobs.StartJob(w.t.Context(), job.Seq)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.end(job, hours+1, "")
	return job
}

func TestJobsOfTheScheduleAreForgotten(t *testing.T) {
	t.Parallel()
	const day = 24
	w := newStoreWorld(t)
	if err := w.s.Collections.Track(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	asked := w.begin(jobs.Request{Collection: note}, 0, 0)
	w.end(asked, 1, "")
	first, second := w.refreshed(1*day), w.refreshed(2*day)
	worked := func(j jobs.Job) bool {
		t.Helper()
		_, err := w.s.Work.Owed(t.Context(), j.Seq, host, "", 1)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	w.at(1*day + 1 + 3*day)
	w.prune()
	w.kept(asked, first, second)
	if worked(first) || !worked(second) || !worked(asked) {
		t.Errorf("the work that is kept: %t %t %t", worked(first), worked(second), worked(asked))
	}
	w.at(1*day + 1 + 28*day)
	w.prune()
	w.kept(asked, second)
	if _, err := w.s.Jobs.Job(t.Context(), first.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a forgotten job: %v", err)
	}
	w.at(100 * day) // nothing is refreshed any more: what came of it last stays
	w.prune()
	w.kept(asked, second)
	w.want(note, 2*day)
	third := w.refreshed(101 * day)
	w.prune()
	w.kept(asked, third)
}

func TestTooManyJobsAreForgottenOldestFirst(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	w := newStoreWorld(t)
	old := w.begin(jobs.Request{Collection: note}, 0, 0)
	w.end(old, 1, "the relay is down")
	running := w.begin(jobs.Request{Collection: other}, 1, 1)
	w.at(2)
	retry, err := w.s.Jobs.RetryJob(t.Context(), old.ID, uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	// As many again as are kept, as if they had ended just now, in rows without a seal.
	const many = 10_000
	var young []jobs.Job
	db, err := bbolt.Open(w.cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		jobList, ids := tx.Bucket([]byte("jobs")), tx.Bucket([]byte("job_ids"))
		row := jobList.Get(binary.BigEndian.AppendUint64(nil, old.Seq))
		for range many {
			var j jobs.Job
			if err := json.Unmarshal(row[1:len(row)-4], &j); err != nil {
				return err
			}
			seq, err := jobList.NextSequence()
			if err != nil {
				return err
			}
			j.ID, j.Seq = uuid.New(), seq
			body, err := json.Marshal(j)
			if err != nil {
				return err
			}
			key := binary.BigEndian.AppendUint64(nil, seq)
			if err := errors.Join(jobList.Put(key, append([]byte{1}, body...)), ids.Put(j.ID[:], key)); err != nil {
				return err
			}
			young = append(young, j)
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	w.s = storetest.OpenConfig(t, w.cfg)
	w.prune()
	// The oldest one is carried on: it makes room only when that has ended.
	w.kept(append(young[3:], old, running, retry)...)
	if _, err := w.s.Jobs.MoveJob(t.Context(), retry.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	w.end(retry, 4, "")
	another := w.begin(jobs.Request{Collection: other}, 5, 5)
	w.prune() // its work is not even a day old
	w.kept(append(young[3:], running, retry, another)...)
	if _, err := w.s.Jobs.RetryJob(t.Context(), old.ID, uuid.New()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("retry a forgotten job: %v", err)
	}
	if again, err := w.s.Jobs.JobBySeq(t.Context(), retry.RetryOf); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what it carried on: %+v, %v", again, err)
	}
}

// TestDeletionsAreKeptUntilTheKeyIndexKnows prunes when the key index has not been
// brought up to date for longer than deletions are kept.
func TestDeletionsAreKeptUntilTheKeyIndexKnows(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Now: func() time.Time { return now }})
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	indexKeys := func() {
		t.Helper()
		if done, err := s.Index.IndexKeys(t.Context(), note); err != nil || !done {
			t.Fatalf("index keys: %t, %v", done, err)
		}
	}
	prune := func() int {
		t.Helper()
		if done, err := s.Prune(t.Context()); err != nil || !done {
			t.Fatalf("prune: %t, %v", done, err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
		list, err := s.Deletions(t.Context(), note)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	indexKeys()
	if n, err := s.Collections.DeleteRecords(t.Context(), index.Filter{DID: alice}); err != nil || n != 2 {
		t.Fatalf("delete: %d, %v", n, err)
	}
	now = now.Add(40 * 24 * time.Hour)
	if n := prune(); n != 2 {
		t.Errorf("%d deletions are kept that the key index does not know, want 2", n)
	}
	indexKeys()
	if n := prune(); n != 0 {
		t.Errorf("%d deletions are kept after 40 days", n)
	}
}

func TestClockOfANewFileBeginsNow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := newBench(t, storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Now: func() time.Time { return now }}))
	if err := b.s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	job, err := b.s.Jobs.FinishJob(t.Context(), b.job.Seq, none)
	if err != nil || !job.KeptFrom.Equal(now) {
		t.Errorf("kept from %s, %v; want %s", job.KeptFrom, err, now)
	}
}

// TestFileIsInOrderAfterEveryStepOfForgetting ends the process between the steps in
// which the work of an old job is deleted.
func TestFileIsInOrderAfterEveryStepOfForgetting(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	job := w.begin(jobs.Request{Collection: note}, 0, 0)
	giveUp(t, w.s, job, crowd(10))
	w.end(job, 1, "")
	w.at(40 * 24)
	if err := w.s.Collections.Track(t.Context(), note); err != nil { // the store takes note of the time
		t.Fatal(err)
	}
	steps := 0
	for done := false; !done; steps++ {
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, w.cfg.Path)
		cfg := w.cfg
		cfg.Hooks.Step = 3
		w.s = storetest.OpenConfig(t, cfg)
		var err error
		if done, err = w.s.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		// What is left of it is nothing to be shown, or carried on.
		if list, _, err := w.s.Jobs.JobRepos(t.Context(), job.Seq, "", 100, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after step %d: %d repos, %v", steps, len(list), err)
		}
		if _, err := w.s.Jobs.RetryJob(t.Context(), job.ID, uuid.New()); !errors.Is(err, jobs.ErrNothingLeft) {
			t.Errorf("retry after step %d: %v", steps, err)
		}
	}
	if steps < 4 {
		t.Errorf("forgotten in %d steps: this tests nothing", steps)
	}
}
