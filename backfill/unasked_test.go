package backfill_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/jobs"
)

// unasked are the options under which no repo's status is asked for to see whether it
// should be.
func unasked() options {
	return options{check: func(syntax.DID) bool { return false }}
}

// lookUps is how often a repo was looked up.
func (r *rig) lookUps(did syntax.DID) int {
	return len(r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPLC && q.DID == did.String() }))
}

func TestWholeRepoIsOneRequestAndOneLookUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		check             bool
		statuses, lookUps int64
	}{
		"as a rule":       {false, 0, 40},
		"to see about it": {true, 40, 80},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 72, Repos: 40, Hosts: 4}, options{check: func(syntax.DID) bool { return c.check }})
			r.complete(jobs.Request{})
			r.wantTruth("")
			if n := r.world.Count(sandbox.PartPDS, getRepo); n != 40 {
				t.Errorf("%d times getRepo for 40 repos", n)
			}
			if n := r.world.Count(sandbox.PartPDS, repoStatus); n != c.statuses {
				t.Errorf("%d times getRepoStatus, want %d", n, c.statuses)
			}
			if n := r.world.Count(sandbox.PartPLC, ""); n != c.lookUps {
				t.Errorf("%d look-ups, want %d", n, c.lookUps)
			}
		})
	}
}

// TestLookUpIsMadeAgainInDoubt has something speak against the look-up by which a repo came
// into the queue of its host.
func TestLookUpIsMadeAgainInDoubt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before    func(*rig, syntax.DID)                                        // the job
		during    func(r *rig, did syntax.DID, q sandbox.Request) sandbox.Fault // at the first request for the repo
		late      bool                                                          // the clock goes on by eleven minutes when it is looked up
		class     outcome.Class
		reason    outcome.Reason
		lookUps   int
		getRepos  int
		withTruth bool
	}{
		"it is too old": {late: true, class: outcome.ClassDone, reason: outcome.ReasonExact, lookUps: 2, getRepos: 1, withTruth: true},
		"another key has signed": {
			before: func(r *rig, did syntax.DID) { r.world.Assign(did, zoo.WrongKey()) },
			class:  outcome.ClassFailed, reason: outcome.ReasonBadSignature, lookUps: 4, getRepos: 2,
		},
		"there is no key": {
			before: func(r *rig, did syntax.DID) { r.world.Assign(did, zoo.NoKey()) },
			class:  outcome.ClassFailed, reason: outcome.ReasonBadSignature, lookUps: 4,
		},
		"there is no key, and the account is not active": {
			before: func(r *rig, did syntax.DID) {
				r.world.Assign(did, zoo.NoKey())
				r.must(r.world.Deactivate(did))
			},
			class: outcome.ClassUnavailable, reason: outcome.ReasonDeactivated, lookUps: 3,
		},
		"the account is not active": {
			before: func(r *rig, did syntax.DID) { r.must(r.world.Deactivate(did)) },
			class:  outcome.ClassUnavailable, reason: outcome.ReasonDeactivated, lookUps: 2, getRepos: 1,
		},
		"an attempt has failed": {
			during: func(*rig, syntax.DID, sandbox.Request) sandbox.Fault {
				return sandbox.Fault{Status: http.StatusTooEarly}
			},
			class: outcome.ClassDone, reason: outcome.ReasonExact, lookUps: 1, getRepos: 1, withTruth: true,
		},
		"the connection broke": {
			during: func(*rig, syntax.DID, sandbox.Request) sandbox.Fault { return sandbox.Fault{Cut: true} },
			class:  outcome.ClassDone, reason: outcome.ReasonExact, lookUps: 1, getRepos: 1, withTruth: true,
		},
		"the account has moved": {
			during: func(r *rig, did syntax.DID, q sandbox.Request) sandbox.Fault {
				for _, url := range r.world.HostURLs() {
					if url != q.Host {
						r.must(r.world.Move(did, url))
					}
				}
				return sandbox.Fault{}
			},
			class: outcome.ClassDone, reason: outcome.ReasonExact, lookUps: 2, getRepos: 2, withTruth: true,
		},
		"it was read at another host": {
			before: func(r *rig, did syntax.DID) {
				r.complete(jobs.Request{})
				home, err := r.world.Repo(did)
				r.must(err)
				for _, url := range r.world.HostURLs() {
					if url != home.Host {
						r.must(r.world.Move(did, url))
					}
				}
			},
			class: outcome.ClassDone, reason: outcome.ReasonExact, lookUps: 2, getRepos: 1, withTruth: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shift, first atomic.Int64
			o := unasked()
			o.config.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
			r := newRigWith(t, sandbox.Config{Seed: 73, Repos: 1, Hosts: 2, Collections: statuses(2, 2)}, o)
			did := r.world.Repos()[0].DID
			if c.before != nil {
				c.before(r, did)
			}
			lookUps, getRepos := r.lookUps(did), r.asked(did).wholes
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				switch {
				case q.Part == sandbox.PartPLC && c.late && shift.Load() == 0:
					shift.Store(int64(11 * time.Minute))
				case q.Part == sandbox.PartPDS && c.during != nil && q.DID == did.String() && first.Add(1) == 1:
					return c.during(r, did, q)
				}
				return sandbox.Fault{}
			})
			job := r.complete(jobs.Request{DID: did})
			r.ended(job, did, c.class, c.reason)
			if n := r.lookUps(did) - lookUps; n < c.lookUps || n > c.lookUps+1 || n > c.lookUps && c.during == nil {
				t.Errorf("looked up %d times, want %d", n, c.lookUps)
			}
			if n := r.asked(did).wholes - getRepos; n != c.getRepos {
				t.Errorf("%d times getRepo, want %d", n, c.getRepos)
			}
			if c.withTruth {
				r.wantTruth("")
			}
		})
	}
}

// TestRowWithoutAKeyIsLookedUpAgain has a job go on whose repos came into the queue of
// their host before keys were noted with them.
func TestRowWithoutAKeyIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 74, Repos: 3, Hosts: 1, Collections: statuses(1, 1)}, unasked())
	r.stop()
	ctx := t.Context()
	dids := inOrder(r.world)
	job, err := r.store.Jobs.CreateJob(ctx, uuid.New(), jobs.Request{DIDs: dids}, nil)
	r.must(err)
	_, err = r.store.Jobs.StartJob(ctx, job.Seq)
	r.must(err)
	_, err = r.store.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "\x00did", DIDs: dids, Cursor: jobs.Cursor{Pages: 1, Done: true}})
	r.must(err)
	for _, did := range dids {
		done := make(chan error, 1)
		r.must(r.store.Work.Rehost(ctx, job.Seq, did, "", r.world.HostURLs()[0], func(err error) { done <- err }))
		r.must(<-done)
	}
	r.run(unasked())
	if job = r.finish(job); job.Reasons["exact"] != 3 {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth("")
	for _, did := range dids {
		if n := r.lookUps(did); n != 1 {
			t.Errorf("%s was looked up %d times", did, n)
		}
	}
}

// inactiveButGiven has hosts say that some accounts are not active, and give their repos.
func inactiveButGiven(r *rig, dids []syntax.DID) {
	given := map[string]bool{}
	for _, did := range dids {
		given[did.String()] = true
	}
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method != repoStatus || !given[q.DID] {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "inactive", Rewrite: func(a sandbox.Answer) sandbox.Answer {
			a.Body = []byte(`{"did":"` + q.DID + `","active":false,"status":"deactivated"}`)
			return a
		}}
	})
}

// TestHostThatGivesReposOfInactiveAccounts has a host give the repos of accounts that it
// calls deactivated. One is asked about, and what was taken for active at this host is read
// anew, in this job and in every other.
func TestHostThatGivesReposOfInactiveAccounts(t *testing.T) {
	t.Parallel()
	var look atomic.Pointer[syntax.DID]
	o := options{check: func(did syntax.DID) bool { at := look.Load(); return at != nil && *at == did }}
	r := newRigWith(t, sandbox.Config{Seed: 75, Repos: 30, Hosts: 1, Collections: statuses(1, 2)}, o)
	dids := inOrder(r.world)
	inactive := dids[3:8]
	inactiveButGiven(r, inactive)
	look.Store(&inactive[4])
	want := func(job jobs.Job) {
		t.Helper()
		for _, did := range inactive {
			r.ended(job, did, outcome.ClassUnavailable, outcome.ReasonDeactivated)
			if uris := r.servedOf(did); len(uris) > 0 {
				t.Errorf("%s is served: %v", did, uris)
			}
		}
		if job.Unavailable != 5 || job.Reasons["exact"] != 25 {
			t.Errorf("job: %+v", job)
		}
	}
	want(r.complete(jobs.Request{}))
	host := r.world.HostURLs()[0]
	if known, err := r.store.Work.Distrusted(t.Context(), host); err != nil || !known {
		t.Fatalf("the host is distrusted: %t, %v", known, err)
	}
	// Another process, which looks for nothing: this host is asked first, for good.
	r.stop()
	look.Store(nil)
	r.run(o)
	statuses := r.world.Count(sandbox.PartPDS, repoStatus)
	want(r.complete(jobs.Request{}))
	if n := r.world.Count(sandbox.PartPDS, repoStatus) - statuses; n != 30 {
		t.Errorf("the status of %d repos was asked for, want 30", n)
	}
}

// TestAccountKnownToBeInactiveIsAskedFor has a host give the repo of an account that was not
// active when it was last asked about, or that a listing says is not.
func TestAccountKnownToBeInactiveIsAskedFor(t *testing.T) {
	t.Parallel()
	for name, listed := range map[string]bool{"as it was last known": false, "as it is listed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 76, Repos: 6, Hosts: 1, Collections: statuses(1, 2)}, unasked())
			did := inOrder(r.world)[2]
			if !listed {
				r.complete(jobs.Request{})
				r.must(r.world.Deactivate(did))
				r.complete(jobs.Request{})
				r.must(r.world.Activate(did))
			}
			before := r.asked(did)
			inactiveButGiven(r, []syntax.DID{did})
			if listed {
				r.listInactive(did)
			}
			job := r.complete(jobs.Request{})
			r.ended(job, did, outcome.ClassUnavailable, outcome.ReasonDeactivated)
			if uris := r.servedOf(did); len(uris) > 0 {
				t.Errorf("%s is served: %v", did, uris)
			}
			if n := r.asked(did).probes - before.probes; n == 0 {
				t.Error("its status was not asked for")
			}
			// Nor does anything that the host gives say what the account is, from here on.
			if known, err := r.store.Work.Distrusted(t.Context(), r.world.HostURLs()[0]); err != nil || !known {
				t.Errorf("the host is distrusted: %t, %v", known, err)
			}
		})
	}
}

// listInactive has the relay's listing say that an account is not active, beside what
// happens already.
func (r *rig) listInactive(did syntax.DID) {
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part == sandbox.PartRelay:
			return sandbox.Fault{Name: "listed inactive", Rewrite: func(a sandbox.Answer) sandbox.Answer {
				entry, rest, ok := strings.Cut(string(a.Body), `"did":"`+did.String()+`"`)
				if ok {
					a.Body = []byte(entry + `"did":"` + did.String() + `"` + strings.Replace(rest, `"active":true`, `"active":false`, 1))
				}
				return a
			}}
		case q.Method == repoStatus && q.DID == did.String():
			return sandbox.Fault{Rewrite: func(a sandbox.Answer) sandbox.Answer {
				a.Body = []byte(`{"did":"` + q.DID + `","active":false,"status":"deactivated"}`)
				return a
			}}
		}
		return sandbox.Fault{}
	})
}
