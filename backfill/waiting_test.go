package backfill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

// away are the ways in which somebody may not answer, and what is said of each.
var away = map[string]struct { //nolint:gochecknoglobals // a table that is never changed
	fault  sandbox.Fault
	answer string
}{
	"bad gateway":                {sandbox.Fault{Status: http.StatusBadGateway, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<html>")}, "502"},
	"internal error":             {sandbox.Fault{Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError","message":"oh no"}`)}, "oh no"},
	"unavailable":                {sandbox.Fault{Status: http.StatusServiceUnavailable}, "503"},
	"a cloud's proxy":            {sandbox.Fault{Status: 522}, "522"},
	"too many requests":          {sandbox.Fault{Status: http.StatusTooManyRequests}, "429"},
	"too many, come back":        {sandbox.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}}, "429"},
	"unavailable, and come back": {sandbox.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}}, "503"},
	"a cut answer":               {sandbox.Fault{Status: http.StatusOK, Body: []byte(`{"repos":[`), Cut: true, CutAfter: 5}, "cut_body"},
}

// impatient has a job fail after two attempts at anything, soon one after the other.
func impatient() options {
	o := options{config: backfill.Config{Attempts: 2, Retry: time.Millisecond}}
	o.network.Timing = network.Timing{Pause: 20 * time.Millisecond, Probe: 10 * time.Millisecond, MaxProbe: 20 * time.Millisecond}
	return o
}

// waitsFor waits until the job waits for somebody who has been asked for long, and says so.
func (r *rig) waitsFor(job jobs.Job, what api.Waiting, host, answer string, asked func() int64) {
	r.t.Helper()
	since := time.Now()
	first := asked()
	r.await(job, "waiting for the "+string(what), func(j jobs.Job) bool {
		if j.Status.Final() {
			r.t.Fatalf("the job does not wait for the %s: %+v", what, j)
		}
		waiting, _, _ := r.b.Progress(j)
		at, began, until, said := r.b.Waits(j)
		return waiting == what && at == host && strings.Contains(said, answer) && !began.IsZero() && until.After(began) &&
			!began.After(time.Now()) && asked() > max(first, 4) && time.Since(since) > 300*time.Millisecond
	})
}

// goesOn waits until the job does not wait any more, whatever becomes of it.
func (r *rig) goesOn(job jobs.Job) {
	r.t.Helper()
	r.await(job, "going on", func(j jobs.Job) bool {
		waiting, _, _ := r.b.Progress(j)
		host, _, _, _ := r.b.Waits(j)
		return waiting == "" && host == ""
	})
}

func TestJobWaitsForTheRelay(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	const perPage = 7
	for name, c := range away {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 130, Repos: 3 * perPage, Hosts: 2, Collections: statuses(1, 1)}, impatient())
			var broken atomic.Bool
			broken.Store(true)
			pagedRelay(t, r.world, perPage, func(page int) sandbox.Fault {
				if page == 0 || !broken.Load() {
					return sandbox.Fault{}
				}
				f := c.fault
				f.Name = "away"
				return f
			})
			job := r.create(jobs.Request{Collection: status})
			r.waitsFor(job, "relay", r.world.RelayURL(), c.answer, func() int64 { return r.world.Faults("away") })
			if job = r.job(job); job.Status != api.StatusRunning || job.TotalRepos != perPage {
				t.Errorf("while the relay is away: %+v", job)
			}
			broken.Store(false)
			r.goesOn(job)
			if job = r.finish(job); job.Status != api.StatusCompleted || job.TotalRepos != 3*perPage || job.Reasons["exact"] != 3*perPage {
				t.Errorf("job: %+v", job)
			}
			r.wantTruth(status)
		})
	}
}

// TestRelayIsGivenTimeIfItAnswers has a relay fail from the first question on: who
// answers that it cannot is waited for, and who never answered, or does not know the
// question, is not.
func TestRelayIsGivenTimeIfItAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault sandbox.Fault
		known bool // it has answered this process before
		waits bool
	}{
		"bad gateway":                 {sandbox.Fault{Status: http.StatusBadGateway}, false, true},
		"not a word":                  {sandbox.Fault{Cut: true}, false, false},
		"not a word, for once":        {sandbox.Fault{Cut: true}, true, true},
		"a web page":                  {says("x", "<html><body>Hello"), false, false},
		"a web page, for once":        {says("x", "<html><body>Hello"), true, true},
		"another answer":              {says("x", `{"hello":"world"}`), false, false},
		"another answer, for once":    {says("x", `{"hello":"world"}`), true, true},
		"no such method":              {sandbox.Fault{Status: http.StatusNotImplemented, Body: []byte(`{"error":"MethodNotImplemented"}`)}, false, false},
		"no such method, any more":    {sandbox.Fault{Status: http.StatusNotImplemented}, true, false},
		"not found":                   {sandbox.Fault{Status: http.StatusNotFound}, true, false},
		"refused":                     {sandbox.Fault{Status: http.StatusForbidden}, true, false},
		"too many requests from here": {sandbox.Fault{Status: http.StatusTooManyRequests}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 131, Repos: 3, Hosts: 1, Collections: statuses(1, 1)}, impatient())
			if c.known {
				r.complete(jobs.Request{Collection: status})
			}
			f := c.fault
			f.Name = "away"
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part == sandbox.PartRelay {
					return f
				}
				return sandbox.Fault{}
			})
			job := r.create(jobs.Request{Collection: status})
			if c.waits {
				r.waitsFor(job, "relay", r.world.RelayURL(), "", func() int64 { return r.world.Faults("away") })
				r.world.SetFault(nil)
				if job = r.finish(job); job.Status != api.StatusCompleted {
					t.Errorf("job: %+v", job)
				}
				return
			}
			job = r.finish(job)
			if n := r.world.Faults("away"); job.Status != api.StatusFailed || n == 0 || n > 2 {
				t.Errorf("after %d answers: %+v", n, job)
			}
			if !strings.Contains(job.Error, "appview backfill retry "+job.ID.String()) {
				t.Errorf("the error does not say how to carry on: %s", job.Error)
			}
		})
	}
}

// TestRelayIsGivenUpAfterHours has a relay answer nothing but errors for hours, of which
// our own network takes some.
func TestRelayIsGivenUpAfterHours(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want outcome.Reason
	}{
		"errors": {&network.Error{Reason: outcome.ReasonHTTP5xx, Status: http.StatusBadGateway}, outcome.ReasonHTTP5xx},
		"pauses": {&network.Parked{Why: polite.WhyRateLimited}, outcome.ReasonRateLimited},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var clock atomic.Int64
			o := impatient()
			o.config.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
			r := newRigWith(t, sandbox.Config{Seed: 132, Repos: 1, Hosts: 1}, o)
			asked := 0
			_, err := r.b.RelayPage(t.Context(), func(context.Context, string) (network.ReposPage, error) {
				asked++
				clock.Add(int64(time.Hour / time.Second))
				if asked == 5 {
					return network.ReposPage{}, &network.Parked{Host: r.net.Relay(), Why: polite.WhyNetwork}
				}
				return network.ReposPage{}, c.err
			})
			var failed *network.Error
			if !errors.As(err, &failed) || failed.Reason != c.want || asked != 5+7 {
				t.Errorf("after %d hours: %v", asked, err)
			}
		})
	}
}

func TestJobWaitsForTheDirectory(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for name, c := range away {
		for _, repos := range []int{1, 4, 60} {
			t.Run(fmt.Sprintf("%s, %d repos", name, repos), func(t *testing.T) {
				t.Parallel()
				r := newRigWith(t, sandbox.Config{Seed: 133, Repos: repos, Hosts: 2, Collections: statuses(1, 1)}, impatient())
				var looked atomic.Int64
				var back atomic.Bool
				r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
					if q.Part != sandbox.PartPLC || back.Load() || looked.Add(1) <= int64(repos/3) {
						return sandbox.Fault{}
					}
					f := c.fault
					f.Name = "away"
					return f
				})
				job := r.create(jobs.Request{Collection: status})
				r.waitsFor(job, "directory", r.world.PLCURL(), c.answer, func() int64 { return r.world.Faults("away") })
				if job = r.job(job); job.Status != api.StatusRunning || job.Failed > 0 {
					t.Errorf("while the directory is away: %+v", job)
				}
				back.Store(true)
				r.goesOn(job)
				if job = r.finish(job); job.Status != api.StatusCompleted || job.Reasons["exact"] != int64(repos) {
					t.Errorf("job: %+v", job)
				}
				r.wantTruth(status)
				for _, repo := range r.world.Repos() {
					if got := r.repo(job, repo.DID); got.Attempts > 1 {
						t.Errorf("%s took %d attempts", repo.DID, got.Attempts)
					}
				}
			})
		}
	}
}

// TestLookUpThatFailsAloneIsGivenUp has the directory fail for some repos only: they
// cost their attempts, and nobody waits for them.
func TestLookUpThatFailsAloneIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]sandbox.Fault{
		"internal error": {Status: http.StatusInternalServerError}, "bad gateway": {Status: http.StatusBadGateway},
		"not a word": {Cut: true}, "a web page": says("x", "<html>"),
	} {
		for _, sick := range []int{1, 12} {
			t.Run(fmt.Sprintf("%s, %d of 20", name, sick), func(t *testing.T) {
				t.Parallel()
				o := impatient()
				o.config.Retry = 200 * time.Millisecond
				r := newRigWith(t, sandbox.Config{Seed: 134, Repos: 20, Hosts: 2, Collections: statuses(1, 1)}, o)
				broken := map[string]bool{}
				for _, repo := range r.world.Repos()[:sick] {
					broken[repo.DID.String()] = true
				}
				r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
					if q.Part != sandbox.PartPLC || !broken[q.DID] {
						return sandbox.Fault{}
					}
					f := f
					f.Name = "sick"
					return f
				})
				job := r.complete(jobs.Request{Collection: status})
				if job.Reasons["did_lookup"] != int64(sick) || job.Reasons["exact"] != int64(20-sick) {
					t.Errorf("job: %+v", job)
				}
			})
		}
	}
}

// TestDirectoryIsGivenUpAfterHours has a directory fail for longer than it is waited for.
func TestDirectoryIsGivenUpAfterHours(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 135, Repos: 30, Hosts: 2, Collections: statuses(1, 1)}, impatient())
	var asked atomic.Int64
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPLC {
			asked.Add(1)
			return sandbox.Fault{Name: "away", Status: http.StatusBadGateway}
		}
		return sandbox.Fault{}
	})
	job := r.create(jobs.Request{Collection: status})
	r.waitsFor(job, "directory", r.world.PLCURL(), "502", asked.Load)
	r.b.WaitedFor(job.ID, 5*time.Hour)
	r.waitsFor(job, "directory", r.world.PLCURL(), "502", asked.Load)
	r.b.WaitedFor(job.ID, 2*time.Hour)
	job = r.finish(job)
	if job.Status != api.StatusCompleted || job.Reasons["did_lookup"] != 30 {
		t.Errorf("after seven hours: %+v", job)
	}
	if got := r.repo(job, r.world.Repos()[3].DID); !strings.Contains(got.Detail, "since") || !strings.Contains(got.Detail, "502") {
		t.Errorf("repo: %+v", got)
	}
	r.world.SetFault(nil)
	r.retry(job)
	r.wantTruth(status)
}

// TestWaitingJobs has several jobs wait at once, one of them be paused and another
// cancelled meanwhile, and counts what is logged.
func TestWaitingJobs(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	o := impatient()
	o.config.MaxJobs = 3
	o.config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	r := newRigWith(t, sandbox.Config{Seed: 136, Repos: 20, Hosts: 2, Collections: statuses(1, 1)}, o)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPDS {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: string(q.Part), Status: http.StatusBadGateway}
	})
	asked := func(part sandbox.Part) func() int64 {
		return func() int64 { return r.world.Faults(string(part)) }
	}
	named := r.create(jobs.Request{DID: r.world.Repos()[0].DID})
	first, second, third := r.create(jobs.Request{Collection: status}), r.create(jobs.Request{Collection: status}), r.create(jobs.Request{})
	for _, j := range []jobs.Job{first, second, third} {
		r.waitsFor(j, "relay", r.world.RelayURL(), "502", asked(sandbox.PartRelay))
	}
	r.waitsFor(named, "directory", r.world.PLCURL(), "502", asked(sandbox.PartPLC))
	for job, to := range map[*jobs.Job]api.Status{&first: api.StatusPausing, &second: api.StatusCancelling} {
		if _, err := r.b.Move(t.Context(), job.ID, to); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		*job = r.await(*job, "stopped", func(j jobs.Job) bool { return j.Status == api.StatusPaused || j.Status == api.StatusCancelled })
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s to stop", took)
		}
		r.goesOn(*job)
	}
	if _, err := r.b.Move(t.Context(), first.ID, api.StatusRunning); err != nil {
		t.Fatal(err)
	}
	r.waitsFor(first, "relay", r.world.RelayURL(), "502", asked(sandbox.PartRelay))
	r.world.SetFault(nil)
	for _, j := range []jobs.Job{named, first, third} {
		if j = r.finish(j); j.Status != api.StatusCompleted || j.Failed > 0 {
			t.Errorf("job: %+v", j)
		}
	}
	r.wantTruth("")
	text := log.String()
	// The other jobs may come to the directory before it is asked again.
	for line, want := range map[string][2]int{
		`msg="job waits" job=`: {5, 7}, `msg="job waits no more"`: {3, 5}, "for=relay": {6, 6}, "for=directory": {2, 6},
	} {
		if n := strings.Count(text, line); n < want[0] || n > want[1] {
			t.Errorf("%d lines %q, want %v:\n%s", n, line, want, text)
		}
	}
}

// TestRestartWhileTheRelayIsAway ends the process while a job waits, in the middle of its
// listing: the next one waits on, though the relay has not answered it at all.
func TestRestartWhileTheRelayIsAway(t *testing.T) {
	t.Parallel()
	const perPage = 5
	o := impatient()
	r := newRigWith(t, sandbox.Config{Seed: 137, Repos: 3 * perPage, Hosts: 2, Collections: statuses(1, 1)}, o)
	var broken atomic.Bool
	broken.Store(true)
	pagedRelay(t, r.world, perPage, func(page int) sandbox.Fault {
		if page > 0 && broken.Load() {
			return sandbox.Fault{Name: "away", Cut: true}
		}
		return sandbox.Fault{}
	})
	asked := func() int64 { return r.world.Faults("away") }
	job := r.create(jobs.Request{Collection: status})
	r.waitsFor(job, "relay", r.world.RelayURL(), "", asked)
	r.stop()
	r.run(o)
	r.waitsFor(job, "relay", r.world.RelayURL(), "", asked)
	broken.Store(false)
	if job = r.finish(job); job.Status != api.StatusCompleted || job.TotalRepos != 3*perPage {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth(status)
}

// syncBuffer is a buffer that several may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
