package backfill_test

import (
	"testing"

	"appview/sandbox"
	"appview/store"
)

func TestInterruptedJobGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{
		Seed: 20, Repos: 2500, Hosts: 8, Whales: 1,
		Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 0, MaxRecords: 3}},
	}
	r := newRig(t, world)
	undisturbed := r.complete(store.Request{Collection: status})

	r = newRig(t, world)
	job := r.create(store.Request{Collection: status})
	for _, share := range []int64{0, 10, 4, 2} { // of the repos settled when the process ends
		job = r.await(job, "far enough", func(j store.Job) bool {
			return j.Status.Final() || (share == 0 && j.Listed) || (share > 0 && j.Processed > undisturbed.TotalRepos/share)
		})
		r.stop()
		if got := r.job(job); got.Status != store.StatusRunning && got.Status != store.StatusCompleted {
			t.Errorf("an interrupted job is %s", got.Status)
		}
		r.run(options{})
	}
	job = r.finish(job)
	if job.Status != store.StatusCompleted {
		t.Fatalf("job: %+v", job)
	}
	wantCounters(t, job, undisturbed)
	r.wantTruth(status)
	first := 0
	for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Method == byCollection && q.Status == 200 }) {
		if q.Cursor == "" {
			first++
		}
	}
	if first > 1 {
		t.Errorf("discovery was begun %d times", first)
	}
}

func TestCancelledBeforeACrashIsCancelledAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 21, Repos: 20})
	r.stop()
	job := r.create(store.Request{Collection: status}) // nobody works on it
	if _, err := r.b.Move(t.Context(), job.ID, store.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	if got := r.job(job); got.Status != store.StatusCancelling {
		t.Fatalf("job is %s", got.Status)
	}
	if err := r.b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.job(job); got.Status != store.StatusCancelled {
		t.Errorf("after the start job is %s", got.Status)
	}
}

func TestLargeRepoGoesOnInTheMiddle(t *testing.T) {
	t.Parallel()
	world := sandbox.Config{
		Seed: 22, Repos: 1, Hosts: 1,
		Collections: []sandbox.Collection{{NSID: status, Share: 1, MinRecords: 3000, MaxRecords: 3000}},
	}
	r := newRig(t, world)
	listOnly(r.world, nil)
	job := r.create(store.Request{Collection: status})
	r.await(job, "in the middle", func(store.Job) bool { return len(r.served(status)) >= 1000 })
	r.stop()
	r.world.ResetRequests()
	r.run(options{})
	job = r.finish(job)
	r.wantTruth(status)
	if job.Tally != (store.Tally{Records: 3000, Created: 3000}) || job.Reasons["exact"] != 1 {
		t.Errorf("job: %+v", job)
	}
	pages := r.world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords })
	if len(pages) > 22 {
		t.Errorf("%d pages read after the restart, of 31", len(pages))
	}
	for _, q := range pages {
		if q.Cursor == "" {
			t.Error("the listing was begun anew")
		}
	}
}
