package backfill_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

const year = 365 * 24 * time.Hour

// TestClockThatJumpsChangesOnlyTimes has the clock jump back and forth by up to a
// year, within a process and between two, while repos fail, are tried again, and
// hosts ask to be left alone. The job ends as it does without, and as soon.
func TestClockThatJumpsChangesOnlyTimes(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	world := sandbox.Config{Seed: 70, Repos: 400, Hosts: 6, LargeRepos: 1, Collections: statuses(0, 3)}
	trouble := func(seen func(q sandbox.Request) int) func(sandbox.Request) sandbox.Fault {
		return func(q sandbox.Request) sandbox.Fault {
			if q.Method != listRecords || q.DID == "" || q.DID[len(q.DID)-1]%3 != 0 || seen(q) > 2 {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
	}
	counting := func() func(sandbox.Request) int {
		var n [256]atomic.Int64
		return func(q sandbox.Request) int { return int(n[q.DID[len(q.DID)-2]].Add(1)) }
	}
	run := func(disturb func(r *rig, job jobs.Job) jobs.Job) (jobs.Job, time.Duration) {
		r := newRig(t, world)
		r.world.SetFault(trouble(counting()))
		began := time.Now()
		job := r.create(jobs.Request{Collection: status})
		if disturb != nil {
			job = disturb(r, job)
		}
		job = r.finish(job)
		took := time.Since(began)
		if job.Status != api.StatusCompleted || job.Failed != 0 {
			t.Fatalf("job: %+v", job)
		}
		if r.world.Faults("sick") == 0 {
			t.Fatal("nothing failed")
		}
		r.wantTruth(status)
		return job, took
	}
	undisturbed, calm := run(nil)

	clock, rng := &storetest.Clock{}, rand.New(rand.NewPCG(70, 70))
	set := func() {
		by := time.Duration(rng.Int64N(int64(2*year))) - year
		clock.Set(by.Truncate(time.Second))
	}
	disturbed, took := run(func(r *rig, job jobs.Job) jobs.Job {
		o := options{config: backfill.Config{Now: clock.Now}}
		for settled := int64(0); settled < undisturbed.TotalRepos; settled += 80 {
			set()
			r.stop()
			r.run(o)
			set()
			job = r.await(job, "getting on", func(j jobs.Job) bool { return j.Status.Final() || j.Processed > settled })
			set()
		}
		return job
	})
	wantCounters(t, disturbed, undisturbed)
	if took > 20*calm+10*time.Second {
		t.Errorf("the job took %s, without jumps %s", took, calm)
	}
}

// TestHostThatLimitsIsNotWaitedForForAYear finds in the file that a host has limited
// us since a time which a clock that was ahead took for now.
func TestHostThatLimitsIsNotWaitedForForAYear(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 71, Repos: 6, Hosts: 1, Collections: statuses(1, 1)})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartPDS {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "limited", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3000"}}, Body: []byte(`{}`)}
	})
	host := r.world.HostURLs()[0]
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "limited", func(j jobs.Job) bool {
		h, err := r.store.Work.Host(t.Context(), j.Seq, host)
		return err == nil && !h.LimitedAt.IsZero()
	})
	r.stop()
	ahead := time.Now().Add(year).UTC().Truncate(time.Second)
	if err := r.store.Work.PutHost(t.Context(), job.Seq, host, jobs.Behaviour{LimitedAt: ahead}); err != nil {
		t.Fatal(err)
	}
	r.run(options{})
	r.await(job, "limited since a time that has been", func(j jobs.Job) bool {
		h, err := r.store.Work.Host(t.Context(), j.Seq, host)
		return err == nil && !h.LimitedAt.IsZero() && h.LimitedAt.Before(time.Now())
	})
}

// TestJobsKeepTheirOrderWhateverTheClockDoes creates jobs while the clock goes back.
func TestJobsKeepTheirOrderWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	clock := &storetest.Clock{}
	r := newRigWith(t, sandbox.Config{Seed: 72, Repos: 3}, options{
		store: store.Config{Now: clock.Now}, config: backfill.Config{Now: clock.Now},
	})
	var made []string
	for i := range 4 {
		clock.Set(-time.Duration(i) * year)
		made = append(made, r.complete(jobs.Request{Collection: status}).ID.String())
	}
	slices.Reverse(made)
	jobs, err := r.store.Jobs.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, j := range jobs {
		got = append(got, j.ID.String())
		if j.CreatedAt.Location() != time.UTC || i > 0 && !j.CreatedAt.Before(jobs[i-1].CreatedAt.Add(2*year)) {
			t.Errorf("created at %s", j.CreatedAt)
		}
	}
	if !slices.Equal(got, made) {
		t.Errorf("jobs in order %v, want %v", strings.Join(got, " "), made)
	}
}

// TestHostThatLimitsIsNotGivenUpForAJump sets the clock forward while a host asks to
// be left alone: that has not lasted for longer.
func TestHostThatLimitsIsNotGivenUpForAJump(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	clock := &storetest.Clock{}
	r := newRigWith(t, sandbox.Config{Seed: 73, Repos: 6, Hosts: 1, Collections: statuses(1, 1)}, options{config: backfill.Config{Now: clock.Now}})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartPDS {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "limited", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"2"}}, Body: []byte(`{}`)}
	})
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "limited", func(j jobs.Job) bool {
		h, err := r.store.Work.Host(t.Context(), j.Seq, r.world.HostURLs()[0])
		return err == nil && !h.LimitedAt.IsZero()
	})
	clock.Set(year)
	asked := r.world.Faults("limited")
	r.await(job, "limited once more", func(jobs.Job) bool { return r.world.Faults("limited") > asked })
	r.world.SetFault(nil)
	if job = r.finish(job); job.Status != api.StatusCompleted || job.Failed != 0 {
		t.Errorf("job: %+v", job)
	}
}
