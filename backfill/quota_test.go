package backfill_test

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

// spends has hosts say with every answer that a quota is spent for longer than
// any test waits.
func spends(r *rig, name string, method func(string) bool) {
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartPDS || !method(q.Method) {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: name, Rewrite: func(a sandbox.Answer) sandbox.Answer {
			a.Header.Set("RateLimit-Remaining", "0")
			a.Header.Set("RateLimit-Reset", strconv.Itoa(1800))
			return a
		}}
	})
}

func TestSpentQuotaOfOneKindLeavesTheOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request jobs.Request
		spent   func(method string) bool
		used    string
	}{
		"of listing": {jobs.Request{Collection: status}, func(m string) bool { return m != getRepo }, getRepo},
		"of getRepo": {jobs.Request{}, func(m string) bool { return m == getRepo }, listRecords},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 100, Repos: 25, Hosts: 1})
			spends(r, "spent", c.spent)
			job := r.complete(c.request)
			r.wantTruth(c.request.Collection)
			if job.Failed > 0 || r.world.Faults("spent") == 0 || r.world.Count(sandbox.PartPDS, c.used) < 10 {
				t.Errorf("after %d requests to the other kind: %+v", r.world.Count(sandbox.PartPDS, c.used), job)
			}
		})
	}
}

func TestHostThatWantsADayOfSilenceIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 101, Repos: 60, Hosts: 3, Collections: statuses(1, 2)})
	limited := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Host != limited {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "tomorrow", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"86400"}}}
	})
	job := r.complete(jobs.Request{Collection: status})
	if job.Reasons["rate_limited"] != 20 || job.Reasons["exact"] != 40 || job.Failed != 20 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("tomorrow"); n == 0 || n > 4 {
		t.Errorf("%d requests to a host that wants silence", n)
	}
}

func TestHostThatNeverAnswersGetRepoIsListed(t *testing.T) {
	t.Parallel()
	o := options{config: backfill.Config{Attempts: 2}}
	o.network.Timing.Header = patient(300 * time.Millisecond)
	r := newRigWith(t, sandbox.Config{Seed: 102, Repos: 40, Hosts: 1}, o)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Method == getRepo} })
	job := r.complete(jobs.Request{})
	r.wantTruth("")
	if n := r.world.Faults("hang"); n == 0 || n > 20 || job.Failed > 0 {
		t.Errorf("%d requests for whole repos: %+v", n, job)
	}
}

// TestDeadHostCostsAFewTimeouts has 500 repos on a host that takes connections and
// never answers: it costs what a few requests cost, not 500 timeouts.
func TestDeadHostCostsAFewTimeouts(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	o := options{}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = 20*time.Millisecond, 50*time.Millisecond
	o.network.Timing.Header = patient(250 * time.Millisecond)
	r := newRigWith(t, sandbox.Config{Seed: 104, Repos: 1000, Hosts: 2, Collections: statuses(1, 1)}, o)
	dead := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Host == dead} })
	job := r.complete(jobs.Request{Collection: status})
	if job.Reasons["exact"] != 500 || job.Failed != 500 || job.Reasons["host_down"] < 490 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("hang"); n < 5 || n > 20 {
		t.Errorf("%d requests waited for a host with 500 repos", n)
	}
}

// TestHalfDeadHostIsGivenUp has a host that tells at once how each repo is, and
// then stands still: as costly as a dead one if every repo were tried on its own.
func TestHalfDeadHostIsGivenUp(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	o := options{}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = 20*time.Millisecond, 50*time.Millisecond
	o.network.Timing.Header, o.network.Timing.Connect, o.network.Timing.TLS = patient(200*time.Millisecond), time.Second, time.Second
	r := newRigWith(t, sandbox.Config{Seed: 103, Repos: 600, Hosts: 3, Collections: statuses(1, 1)}, o)
	half := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Host == half && q.Method != repoStatus}
	})
	job := r.complete(jobs.Request{Collection: status})
	if job.Reasons["exact"] != 400 || job.Failed != 200 || job.Reasons["host_down"] < 150 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("hang"); n == 0 || n > 40 {
		t.Errorf("%d requests hung for 200 repos", n)
	}
}

// TestRepoThatCannotBeReadWholeHoldsUpNoOther has a host that never lists, and does not
// give some of its repos, which stand in front of others.
func TestRepoThatCannotBeReadWholeHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	o := options{}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = 20*time.Millisecond, 50*time.Millisecond
	o.network.Timing.Header, o.network.Timing.Connect, o.network.Timing.TLS = patient(200*time.Millisecond), time.Second, time.Second
	r := newRigWith(t, sandbox.Config{Seed: 106, Repos: 200, Hosts: 1, Collections: statuses(1, 1)}, o)
	dids := make([]string, 0, 200)
	for _, repo := range r.world.Repos() {
		dids = append(dids, repo.DID.String())
	}
	slices.Sort(dids)
	sick := dids[20:40]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == getRepo && slices.Contains(sick, q.DID) {
			return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
		}
		return sandbox.Fault{Hang: q.Method == listRecords}
	})
	job := r.complete(jobs.Request{Collection: status})
	if job.Reasons["exact"] != 180 || job.Failed != 20 || r.world.Faults("sick") < 20 {
		t.Errorf("job: %+v", job)
	}
}

// TestHostThatNeverListsIsReadWhole has a host that stands still whenever records are
// listed, and gives whole repos at once.
func TestHostThatNeverListsIsReadWhole(t *testing.T) {
	t.Parallel()
	o := options{}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = 20*time.Millisecond, 50*time.Millisecond
	o.network.Timing.Header, o.network.Timing.Connect, o.network.Timing.TLS = patient(200*time.Millisecond), time.Second, time.Second
	r := newRigWith(t, sandbox.Config{Seed: 105, Repos: 600, Hosts: 3, Collections: statuses(1, 1)}, o)
	half := r.world.HostURLs()[0]
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Host == half && q.Method == listRecords}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.Failed != 0 || job.Reasons["exact"] != 600 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Faults("hang"); n == 0 || n > 40 {
		t.Errorf("%d requests hung for 200 repos", n)
	}
}
