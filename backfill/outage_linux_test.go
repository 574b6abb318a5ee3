package backfill_test

import (
	"net/netip"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store/jobs"
	"appview/store/storetest"
)

// TestOwnOutageCostsNothing pulls the cable in the middle of a job, in a network of
// its own, and puts it in again: the job says what it waits for, gives nothing up,
// counts no attempt, and goes on at once.
func TestOwnOutageCostsNothing(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	if !sandboxtest.Alone(t, "127.0.0.53") {
		return
	}
	o := options{config: backfill.Config{Attempts: 2, Retry: 10 * time.Millisecond}}
	o.network.Timing = network.Timing{
		// Far longer than a busy machine takes to answer: what times out was cut off.
		Header: 4 * time.Second, BodyIdle: 4 * time.Second, Connect: 4 * time.Second, TLS: 4 * time.Second,
		OutageProbe: 100 * time.Millisecond, Probe: 50 * time.Millisecond, MaxProbe: 100 * time.Millisecond,
	}
	o.network.HostRPS = 80 // so that there is a middle
	r := newRigWith(t, sandbox.Config{Seed: 140, Repos: 300, Hosts: 6, Collections: statuses(1, 2)}, o)
	job := r.create(jobs.Request{Collection: status})
	waiting := func() api.Waiting {
		what, _, _ := r.b.Progress(r.job(job))
		return what
	}
	want := r.job(job).Processed + 40
	r.await(job, "under way", func(j jobs.Job) bool { return j.Processed >= want })
	plug := sandboxtest.Unplug(t, netip.MustParsePrefix("127.77.0.0/16"))
	r.await(job, "waiting for the network", func(jobs.Job) bool { return waiting() == "network" })
	still := r.job(job)
	// Long enough for everything to be given up if it were tried.
	out := time.NewTimer(2500 * time.Millisecond)
	<-out.C
	if now := r.job(job); now.Failed > 0 || now.Unavailable > 0 || now.Processed > still.Processed+20 || waiting() != "network" {
		t.Errorf("while the network was gone, the job waits for %q: %+v", waiting(), now)
	}
	plug()
	back := time.Now()
	r.await(job, "going on", func(j jobs.Job) bool { return j.Processed > still.Processed+20 })
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("it went on %s after the network was back", took)
	}
	job = r.finish(job)
	r.wantTruth(status)
	if job.Reasons["exact"] != 300 || job.Failed > 0 {
		t.Errorf("job: %+v", job)
	}
	for _, repo := range r.world.Repos() {
		if got := r.repo(job, repo.DID); got.Attempts > 1 {
			t.Errorf("%s took %d attempts", repo.DID, got.Attempts)
		}
	}
}
