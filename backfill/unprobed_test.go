package backfill_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// quick are options under which a repo is given up soon.
func quick() options {
	return options{config: backfill.Config{Attempts: tries, Retry: time.Millisecond}}
}

// forgetHosts goes on as a new process, which knows nothing of any host.
func (r *rig) forgetHosts() {
	r.t.Helper()
	r.stop()
	r.run(quick())
}

// ended is what became of a repo in a job that has completed.
func (r *rig) ended(job jobs.Job, did syntax.DID, class outcome.Class, reason outcome.Reason) jobs.JobRepo {
	r.t.Helper()
	repo := r.repo(job, did)
	if repo.Class != string(class) || repo.Reason != string(reason) {
		r.t.Errorf("%s ended %s %s (%s), want %s %s", did, repo.Class, repo.Reason, repo.Detail, class, reason)
	}
	return repo
}

// servedOf are the URIs that the index serves of a repo.
func (r *rig) servedOf(did syntax.DID) (uris []string) {
	r.t.Helper()
	for uri := range r.served("") {
		if strings.HasPrefix(uri, "at://"+did.String()+"/") {
			uris = append(uris, uri)
		}
	}
	return uris
}

// TestAccountThatIsRefusedInPlainTextIsNotFound has a host that says nothing but "404"
// of an account that it does not have any more.
func TestAccountThatIsRefusedInPlainTextIsNotFound(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]jobs.Request{"listed": {Collection: status}, "whole": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 200, Repos: 12, Hosts: 1, Collections: statuses(3, 3)}, quick())
			r.complete(request)
			host := r.world.HostURLs()[0]
			r.world.AssignHost(host, zoo.PlainRefusals())
			gone, off := r.world.Repos()[0].DID, r.world.Repos()[1].DID
			for _, err := range []error{r.world.DeleteAccount(gone), r.world.Deactivate(off)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			r.forgetHosts()
			alone := request
			alone.DID = gone
			r.ended(r.complete(alone), gone, outcome.ClassUnavailable, outcome.ReasonNotFound)
			r.forgetHosts()
			job := r.complete(request)
			repo := r.ended(job, gone, outcome.ClassUnavailable, outcome.ReasonNotFound)
			if !strings.Contains(repo.Detail, "not in so many words") {
				t.Errorf("nothing says that it was inferred: %q", repo.Detail)
			}
			r.ended(job, off, outcome.ClassUnavailable, outcome.ReasonDeactivated)
			if job.Reasons["exact"] != 10 || len(r.servedOf(gone))+len(r.servedOf(off)) > 0 {
				t.Errorf("%v, and %d records of the missing accounts are served", job.Reasons, len(r.servedOf(gone))+len(r.servedOf(off)))
			}
		})
	}
}

// TestHostThatRefusesEverybodyHidesNobody has a proxy whose host is gone, in a process
// that has been answered before and in one that has not.
func TestHostThatRefusesEverybodyHidesNobody(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]sandbox.Fault{
		"text":  {Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("404 page not found\n")},
		"page":  {Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<h1>404</h1>")},
		"json":  {Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"message":"no Route matched with those values"}`)},
		"gone":  {Status: http.StatusGone},
		"blank": {Status: http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 201, Repos: 6, Hosts: 1, Collections: statuses(3, 3)}, quick())
			r.complete(jobs.Request{})
			before := r.rows()
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part == sandbox.PartPDS {
					return f
				}
				return sandbox.Fault{}
			})
			for _, request := range []jobs.Request{{Collection: status}, {}} {
				job := r.complete(request)
				if job.Failed != job.TotalRepos || job.Reasons["no_rev"]+job.Reasons["host_down"] != job.TotalRepos {
					t.Errorf("%v", job.Reasons)
				}
				r.forgetHosts()
			}
			if !slices.Equal(before, r.rows()) {
				t.Error("the index has changed")
			}
		})
	}
}

// TestHostThatRefusesEverybodyIsSetAside has a proxy that has lost its host, with a great
// many repos: it is asked a few times for each of a few, and then probed.
func TestHostThatRefusesEverybodyIsSetAside(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for name, f := range map[string]sandbox.Fault{
		"text": refusal(http.StatusNotFound, "text/plain", "404 page not found"),
		"page": refusal(http.StatusNotFound, "text/html", "<h1>404</h1>"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const repos = 400
			o := quick()
			o.config.Retry = 200 * time.Millisecond
			o.network.Timing.Probe, o.network.Timing.MaxProbe = 100*time.Millisecond, 200*time.Millisecond
			r := newRigWith(t, sandbox.Config{Seed: 208, Repos: repos, Hosts: 1, Collections: statuses(1, 1)}, o)
			r.complete(jobs.Request{Collection: status})
			before := r.rows()
			r.world.ResetRequests()
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part == sandbox.PartPDS {
					return f
				}
				return sandbox.Fault{}
			})
			job := r.complete(jobs.Request{Collection: status})
			if job.Reasons["host_down"] < repos/2 || job.Reasons["host_down"]+job.Reasons["no_rev"] != repos {
				t.Errorf("%v", job.Reasons)
			}
			if n := len(r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS })); n > repos {
				t.Errorf("%d requests for %d repos", n, repos)
			}
			if !slices.Equal(before, r.rows()) {
				t.Error("the index has changed")
			}
			r.world.SetFault(nil)
			if job = r.complete(jobs.Request{Collection: status}); job.Reasons["exact"] != repos {
				t.Errorf("when it is back: %v", job.Reasons)
			}
		})
	}
}

// TestSimulatedHostIsReadWhole has hosts that answer nothing but getRepo.
func TestSimulatedHostIsReadWhole(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]jobs.Request{"some": {Collection: status}, "all": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 202, Repos: 20, Hosts: 2, Collections: statuses(0, 5)}, quick())
			host, other := r.world.HostURLs()[0], r.world.HostURLs()[1]
			r.world.AssignHost(host, zoo.SimulatedHost())
			repos := slices.DeleteFunc(r.world.Repos(), func(p sandbox.Repo) bool { return p.Host != host })
			job := r.complete(request)
			if job.Failed+job.Unavailable > 0 {
				t.Errorf("%v", job.Reasons)
			}
			r.wantTruth(status)
			for _, err := range []error{
				r.world.DeleteAccount(repos[0].DID), r.world.TakeDown(repos[1].DID), r.world.Move(repos[2].DID, other),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := r.world.Create(repos[3].DID, status, "", map[string]any{"$type": string(status), "status": "🙂"}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.world.Empty(repos[4].DID); err != nil {
				t.Fatal(err)
			}
			job = r.complete(request)
			r.ended(job, repos[0].DID, outcome.ClassUnavailable, outcome.ReasonNotFound)
			r.ended(job, repos[1].DID, outcome.ClassUnavailable, outcome.ReasonTakenDown)
			r.ended(job, repos[4].DID, outcome.ClassDone, outcome.ReasonEmpty)
			if job.Failed > 0 {
				t.Errorf("%v", job.Reasons)
			}
			r.wantTruth(status)
		})
	}
}

// TestHostWithoutStatusIsReadWholeHoweverItSaysSo has hosts refuse both questions for a
// rev, for everybody, in many ways.
func TestHostWithoutStatusIsReadWholeHoweverItSaysSo(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]sandbox.Fault{
		"a page":          refusal(http.StatusNotFound, "text/html", "<!DOCTYPE html><pre>Cannot GET</pre>"),
		"blank":           refusal(http.StatusNotFound, "", ""),
		"gone":            refusal(http.StatusGone, "text/plain", "Gone"),
		"not implemented": refusal(http.StatusNotImplemented, "text/plain", "Not Implemented"),
		"not allowed":     refusal(http.StatusMethodNotAllowed, "text/html", "<h1>Method Not Allowed</h1>"),
		"forbidden":       refusal(http.StatusForbidden, "application/json", `{"message":"Forbidden"}`),
		"bad request":     refusal(http.StatusBadRequest, "text/plain", "Bad Request"),
		"error in a 200":  refusal(http.StatusOK, "application/json", `{"error":"method_not_implemented"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 207, Repos: 30, Hosts: 1, Collections: statuses(1, 3)}, quick())
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Method == repoStatus || q.Method == "com.atproto.sync.getLatestCommit" {
					return f
				}
				return sandbox.Fault{}
			})
			if job := r.complete(jobs.Request{Collection: status}); job.Reasons["exact"] != 30 {
				t.Errorf("%v", job.Reasons)
			}
			r.wantTruth(status)
		})
	}
}

func refusal(status int, kind, body string) sandbox.Fault {
	return sandbox.Fault{Status: status, Header: http.Header{"Content-Type": {kind}}, Body: []byte(body)}
}

// TestRepoThatIsGivenIsThere has an account that its host refuses to tell anything of,
// while it answers for others, and whose repo it gives.
func TestRepoThatIsGivenIsThere(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 203, Repos: 8, Hosts: 1, Collections: statuses(3, 3)}, quick())
	r.complete(jobs.Request{})
	did := r.world.Repos()[3].DID
	r.world.Assign(did, zoo.SimulatedHost())
	for _, request := range []jobs.Request{{Collection: status}, {Collection: status, DID: did}, {}} {
		r.ended(r.complete(request), did, outcome.ClassDone, outcome.ReasonExact)
	}
	r.wantTruth(status)
}

// TestLargeRepoOfASimulatedHostGoesOnAfterARestart ends the process between two steps of
// a repo that is read in one piece.
func TestLargeRepoOfASimulatedHostGoesOnAfterARestart(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	saved, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o := quick()
	o.store.Hooks.Making = func(op string) {
		if strings.HasPrefix(op, "save pages") {
			once.Do(func() { close(saved); <-release })
		}
	}
	r := newRigWith(t, sandbox.Config{Seed: 204, Repos: 1, Hosts: 1, Collections: []sandbox.Collection{
		{NSID: status, Share: 1, MinRecords: 1500, MaxRecords: 1500, RecordBytes: 4 << 10},
	}}, o)
	r.world.AssignHost(r.world.HostURLs()[0], zoo.SimulatedHost())
	job := r.create(jobs.Request{Collection: status})
	<-saved
	r.stop() // the step is not committed yet, and will be
	close(release)
	r.await(job, "in the middle", func(jobs.Job) bool { return len(r.served(status)) > 0 })
	if n := len(r.served(status)); n == 1500 {
		t.Fatal("the process did not end in the middle")
	}
	r.run(quick())
	job = r.finish(job)
	r.ended(job, r.world.Repos()[0].DID, outcome.ClassDone, outcome.ReasonExact)
	if job.Tally != (index.Tally{Records: 1500, Created: 1500}) {
		t.Errorf("%+v", job.Tally)
	}
	r.wantTruth(status)
}

// TestRepoThatGoesWhileItIsListedIsNotFound has an account go, without a word, between two
// steps of a long listing, and another that is refused there and given whole.
func TestRepoThatGoesWhileItIsListedIsNotFound(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]bool{"gone": false, "given": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 206, Repos: 2, Hosts: 1, Collections: statuses(2000, 2000)}, quick())
			did := r.world.Repos()[0].DID
			job := r.stopInTheMiddle(jobs.Request{Collection: status, DID: did}, status)
			refuse := sandbox.Fault{Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("404")}
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part == sandbox.PartPDS && q.DID == did.String() && (!given || q.Method != getRepo) {
					return refuse
				}
				return sandbox.Fault{}
			})
			r.run(quick())
			job = r.finish(job)
			if !given {
				r.ended(job, did, outcome.ClassUnavailable, outcome.ReasonNotFound)
				if n := len(r.servedOf(did)); n > 0 {
					t.Errorf("%d records are served", n)
				}
				return
			}
			r.ended(job, did, outcome.ClassDone, outcome.ReasonExact)
			if n := len(r.servedOf(did)); n != 2000 || job.Tally != (index.Tally{Records: 2000, Created: 2000}) {
				t.Errorf("%d records are served; %+v", n, job.Tally)
			}
		})
	}
}

// TestStatusIsReadByItsMeaning has hosts say what they like of an account.
func TestStatusIsReadByItsMeaning(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 205, Repos: 6, Hosts: 1, Collections: statuses(3, 3)}, quick())
	r.complete(jobs.Request{})
	did := r.world.Repos()[0].DID
	for body, want := range map[string]outcome.Reason{
		`"active":false,"status":"takedown"`:       outcome.ReasonTakenDown,
		`"active":false,"status":"TAKEN-DOWN"`:     outcome.ReasonTakenDown,
		`"status":"account_suspended"`:             outcome.ReasonSuspended,
		`"active":false,"status":"hibernating"`:    outcome.ReasonDeactivated,
		`"active":false,"status":"gone elsewhere"`: outcome.ReasonDeactivated,
	} {
		r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
			if q.DID != did.String() || q.Method != repoStatus {
				return sandbox.Fault{}
			}
			return says("status", `{"did":"`+did.String()+`",`+body+`}`)
		})
		job := r.complete(jobs.Request{Collection: status})
		repo := r.ended(job, did, outcome.ClassUnavailable, want)
		if !strings.Contains(repo.Detail, "the host says that the account is") {
			t.Errorf("%s: the detail is %q", body, repo.Detail)
		}
		if len(r.servedOf(did)) > 0 {
			t.Errorf("%s: it is served", body)
		}
		r.world.SetFault(nil)
		r.complete(jobs.Request{Collection: status})
		r.wantTruth(status)
	}
}
