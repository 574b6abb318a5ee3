package backfill_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/jobs"
	"appview/store/storetest"
)

// zooRepos is how many repos the zoo has. ZOO_REPOS asks for more, as `make zoo`
// does; there is a host for every 25. Under the race detector there are as few as
// have every kind of misbehaviour among them.
func zooRepos(t *testing.T) int {
	t.Helper()
	text := os.Getenv("ZOO_REPOS")
	switch {
	case text != "":
	case underRace:
		return 180
	default:
		return 600
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 {
		t.Fatalf("ZOO_REPOS is %q, want a number of repos", text)
	}
	return n
}

// outcomes are the class and reason of every repo of a job.
func (r *rig) outcomes(job jobs.Job) map[syntax.DID]zoo.Outcome {
	r.t.Helper()
	all := map[syntax.DID]zoo.Outcome{}
	for after := syntax.DID(""); ; {
		list, next, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, after, 1000, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, repo := range list {
			all[repo.DID] = zoo.Outcome{Class: repo.Class, Reason: repo.Reason}
		}
		if next == "" {
			return all
		}
		after = next
	}
}

// TestZooEndsAsItShould has every kind of misbehaviour there is at known places of
// one network, some accounts inactive, a host that is dead and one that keeps
// asking for pauses. After one job every repo that can be had is exact against the
// truth, and every other one has the right class and reason.
func TestZooEndsAsItShould(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, name := range []string{"listed", "whole", "whole unasked", "listed only"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := name == "whole" || name == "whole unasked"
			repos := zooRepos(t)
			o := options{config: backfill.Config{Attempts: 3, Retry: 10 * time.Millisecond}}
			o.network.Timing.Probe, o.network.Timing.MaxProbe = 50*time.Millisecond, 100*time.Millisecond
			o.network.Timing.Pause, o.network.Timing.BodyIdle = 200*time.Millisecond, patient(700*time.Millisecond)
			if name == "whole" {
				o.check = func(syntax.DID) bool { return true } // else what hosts say of accounts would not be heard
			}
			received := refusals(&o)
			r := newRigWith(t, sandbox.Config{Seed: 90, Repos: repos, Hosts: repos/25 + 2, LogSize: 1 << 20}, o)
			request := jobs.Request{Collection: notes}
			var targets []syntax.NSID
			if whole {
				request = jobs.Request{}
			} else {
				targets = []syntax.NSID{notes}
			}
			// The index holds everything before the zoo opens.
			r.complete(request)
			held := r.served("")

			share, nth := 0.3, int64(40)
			if underRace {
				share, nth = 0.8, 12
			}
			if name == "whole unasked" {
				nth = 20 // of fewer requests
			}
			animals, expected := zoo.All(), func(did syntax.DID) zoo.Outcome { return zoo.Expected(r.world, did, whole, targets...) }
			if name == "whole unasked" {
				animals = slices.DeleteFunc(animals, func(b zoo.Behaviour) bool { return slices.Contains(onlyStatuses, b.Name) })
			}
			if name == "listed only" {
				animals = slices.DeleteFunc(animals, func(b zoo.Behaviour) bool {
					return b.Name == "endless pages" // it takes 50,000 of them to be believed
				})
				expected = func(did syntax.DID) zoo.Outcome { return zoo.ExpectedListed(r.world, did, targets...) }
			}
			scattered := zoo.Scatter(r.world, 91, share, animals...)
			dead, limited := r.world.HostURLs()[0], r.world.HostURLs()[1]
			r.world.AssignHost(dead, zoo.ServerErrors())
			r.world.AssignHost(r.world.HostURLs()[2], zoo.PlainRefusals())
			if name != "listed only" { // its repos are to be had whole or not at all
				r.world.AssignHost(r.world.HostURLs()[3], zoo.SimulatedHost())
			}
			var inactive []syntax.DID
			for i, repo := range r.world.Repos() {
				if _, in := scattered[repo.DID]; in || i%7 != 0 || repo.Host == dead {
					continue
				}
				inactive = append(inactive, repo.DID)
				end := []func(syntax.DID) error{r.world.Deactivate, r.world.TakeDown, r.world.Suspend, r.world.DeleteAccount, r.world.Tombstone}[len(inactive)%5]
				if err := end(repo.DID); err != nil {
					t.Fatal(err)
				}
			}
			hook, pauses := limit(limited, nth)
			r.world.SetFault(hook)
			if name == "listed only" {
				listOnly(r.world, hook)
			}
			job := r.finish(r.create(request))
			if job.Status != api.StatusCompleted || job.Processed != job.TotalRepos {
				t.Fatalf("job: %+v", job)
			}
			r.wantOutcomes(job, expected)
			r.wantPoliteTo(limited, pauses(), received())
			differ(t, r.served(""), r.expectedIndex(held, expected))
			// The same network again, at rest: the same DIDs, classes and reasons.
			again := r.finish(r.create(request))
			if first, second := r.outcomes(job), r.outcomes(again); !maps.Equal(first, second) {
				for did, o := range first {
					if second[did] != o {
						t.Errorf("%s ended %v, then %v", did, o, second[did])
					}
				}
			}
			for _, url := range r.world.HostURLs() {
				if _, most := r.world.InFlight(url); most > network.DefaultPerHost {
					t.Errorf("%d requests at once to %s", most, url)
				}
			}
			fired := map[string]bool{}
			for _, b := range scattered {
				if r.world.Faults(b.Name) > 0 {
					fired[b.Name] = true
				}
			}
			// Those on listings do not fire where nothing is listed.
			if want := map[string]int{"listed": 39, "listed only": 37, "whole": 34, "whole unasked": 20}[name]; len(fired) < want {
				t.Errorf("only %d kinds of misbehaviour fired, want %d: %v", len(fired), want, fired)
			}
		})
	}
}

// onlyStatuses are the misbehaviours of answers about an account alone, whose repo is given
// as ever.
var onlyStatuses = []string{
	"rev is no tid", "rev in the future", "rev goes back", "takedown", "unknown status", "desynchronized", "status of another",
}

// patient is a time in which something ought to have happened that takes the
// processor: several times as long under the race detector.
func patient(d time.Duration) time.Duration {
	if underRace {
		return 4 * d
	}
	return d
}

// TestCancelStopsAtOnceInTheZoo cancels a job while hosts drip, bomb, loop and
// hang, in the middle of whatever it is doing, and wants it cancelled at once.
func TestCancelStopsAtOnceInTheZoo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 91, Repos: 150, Hosts: 4})
	scattered := zoo.Scatter(r.world, 91, 1, zoo.All()...)
	faults := func() (n map[string]int64) {
		n = map[string]int64{}
		for _, b := range scattered {
			n[b.Name] = r.world.Faults(b.Name)
		}
		return n
	}
	for request, enough := range map[*jobs.Request]int{{Collection: notes}: 25, {}: 20} {
		before := faults()
		job := r.create(*request)
		r.await(job, "among the animals", func(jobs.Job) bool {
			met := 0
			for name, n := range faults() {
				if n > before[name] {
					met++
				}
			}
			return met >= enough
		})
		if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
			t.Fatal(err)
		}
		asked := time.Now()
		if job = r.finish(job); job.Status != api.StatusCancelled {
			t.Errorf("job is %s: %s", job.Status, job.Error)
		}
		if took := time.Since(asked); took > patient(time.Second) {
			t.Errorf("cancelled after %s", took)
		}
	}
}

// limitPause is what a limited host asks for.
const limitPause = 2 * time.Second

// limit has a host answer every nth request with a 429, and tells when it did.
func limit(host string, nth int64) (hook func(sandbox.Request) sandbox.Fault, pauses func() []time.Time) {
	var (
		mu sync.Mutex
		at []time.Time
		n  int64
	)
	hook = func(q sandbox.Request) sandbox.Fault {
		if q.Host != host {
			return sandbox.Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if n++; n%nth != 0 {
			return sandbox.Fault{}
		}
		at = append(at, time.Now())
		return sandbox.Fault{Name: "slow down", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {strconv.Itoa(int(limitPause.Seconds()))}}}
	}
	return hook, func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
}

// refusals has the client tell when it received a 429.
func refusals(o *options) (received func() []time.Time) {
	var (
		mu sync.Mutex
		at []time.Time
	)
	o.network.Observe = func(e network.Exchange) {
		if e.Status == http.StatusTooManyRequests {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
		}
	}
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
}

// wantPoliteTo wants no request sent between the receipt of a 429 and the end of its
// pause, but for what was on the wire. No other host sends 429s.
func (r *rig) wantPoliteTo(host string, pauses, received []time.Time) {
	r.t.Helper()
	if len(pauses) == 0 || len(received) == 0 {
		r.t.Errorf("the host asked for %d pauses, of which %d were heard", len(pauses), len(received))
	}
	onTheWire := patient(250 * time.Millisecond)
	requests := r.world.Requests(func(q sandbox.Request) bool { return q.Host == host })
	for _, asked := range pauses {
		heard := slices.IndexFunc(received, func(at time.Time) bool { return !at.Before(asked) })
		if heard < 0 {
			continue // the call was over by then
		}
		from, to := received[heard].Add(onTheWire), asked.Add(limitPause)
		for _, q := range requests {
			if q.Started.After(from) && q.Started.Before(to) {
				r.t.Errorf("%s was sent %s after a 429 that asked for %s was received", q.Method, q.Started.Sub(received[heard]), limitPause)
			}
		}
	}
}

// wantOutcomes compares the class and reason of every repo with what the world
// says that they come to.
func (r *rig) wantOutcomes(job jobs.Job, expected func(syntax.DID) zoo.Outcome) {
	r.t.Helper()
	wrong := map[string]int{}
	for did, got := range r.outcomes(job) {
		want := expected(did)
		if want.Reason == "rev_went_back" && got.Reason == "empty" {
			continue // the index never held anything of it, so that there is no rev to go back behind
		}
		if got != want {
			wrong[fmt.Sprintf("%s %s instead of %s %s", got.Class, got.Reason, want.Class, want.Reason)]++
		}
	}
	if len(wrong) > 0 {
		r.t.Errorf("outcomes: %v", wrong)
	}
}

// expectedIndex is what the index should serve: the truth of the repos that could
// be read, what was held before of those that could not, and nothing of accounts
// that are not active.
func (r *rig) expectedIndex(held map[string]string, expected func(syntax.DID) zoo.Outcome) map[string]string {
	r.t.Helper()
	want := maps.Clone(held)
	for _, repo := range r.world.Repos() {
		o := expected(repo.DID)
		if o.Class != jobs.ClassUnavailable {
			continue // nothing has changed since it was held
		}
		for uri := range want {
			if len(uri) > len("at://")+len(repo.DID) && uri[len("at://"):][:len(repo.DID)] == repo.DID.String() {
				delete(want, uri)
			}
		}
	}
	return want
}
