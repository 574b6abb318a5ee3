package backfill_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

// plan makes a plan, and wants it to have created nothing.
func (r *rig) plan(req jobs.Request) backfill.Plan {
	r.t.Helper()
	before := r.jobs()
	p, err := r.b.Plan(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	if after := r.jobs(); after != before {
		r.t.Errorf("the plan made %d jobs", after-before)
	}
	return p
}

func (r *rig) jobs() int {
	r.t.Helper()
	jobs, err := r.store.Jobs.List(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return len(jobs)
}

// loads are a plan's loads by role and host.
func loads(p backfill.Plan) map[string]backfill.Load {
	all := map[string]backfill.Load{}
	for _, l := range p.Loads {
		all[string(l.Role)+" "+l.Host] = l
	}
	return all
}

func TestPlanOfASmallCollectionIsWhatTheJobThenDoes(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 61, Repos: 150, Hosts: 4, Skew: true})
	p := r.plan(jobs.Request{Collection: status})
	if !p.Exact() || p.ReposFrom != api.SourceListing || p.HostsFrom != api.SourceLookup || p.RequestsFrom != api.SourceAssumed {
		t.Errorf("the plan is %+v", p)
	}
	looked := r.world.Count(sandbox.PartPLC, "")
	if looked != p.Repos {
		t.Errorf("%d look-ups for %d repos", looked, p.Repos)
	}
	if n := r.world.Count(sandbox.PartPDS, ""); n != 0 {
		t.Errorf("hosts were asked %d times", n)
	}
	listed := r.world.Count(sandbox.PartRelay, "")
	job := r.complete(jobs.Request{Collection: status})
	planned := loads(p)
	if p.Repos != job.TotalRepos || p.Hosts != 4 {
		t.Errorf("planned %d repos on %d hosts, the job found %d on 4", p.Repos, p.Hosts, job.TotalRepos)
	}
	hosts, err := r.store.Jobs.JobHosts(t.Context(), job.Seq)
	if err != nil {
		t.Fatal(err)
	}
	var most backfill.Load
	for _, h := range hosts {
		l := planned["pds "+h.Host]
		if l.Repos != h.Total {
			t.Errorf("%s: planned %d repos, there are %d", h.Host, l.Repos, h.Total)
		}
		if l.Requests > most.Requests {
			most = l
		}
	}
	var requests int64
	for role, part := range map[api.Role]sandbox.Part{api.RolePDS: sandbox.PartPDS, api.RolePLC: sandbox.PartPLC, api.RoleRelay: sandbox.PartRelay} {
		sum := int64(0)
		for _, l := range p.Loads {
			if l.Role == role {
				sum += l.Requests
			}
		}
		requests += sum
		got := r.world.Count(part, "")
		switch part {
		case sandbox.PartPLC:
			got -= looked
		case sandbox.PartRelay:
			got -= listed
		default:
		}
		// Which ends of listings are looked at is a matter of chance.
		if off := math.Abs(float64(sum - got)); off > 0 && (part != sandbox.PartPDS || off > 0.1*float64(got)) {
			t.Errorf("planned %d requests to %s, there were %d", sum, part, got)
		}
	}
	if p.Requests != requests {
		t.Errorf("%d requests in all, added up %d", p.Requests, requests)
	}
	if want := time.Duration(float64(most.Requests) / 100_000 * float64(time.Second)); p.Bottleneck != p.Loads[0] || most.Time != want {
		t.Errorf("the bottleneck is %+v, the host with most requests %+v takes %s", p.Bottleneck, most, want)
	}
	again := r.plan(jobs.Request{Collection: status})
	if !again.Exact() || r.world.Count(sandbox.PartPLC, "") != looked+job.TotalRepos || again.RequestsFrom != api.SourceIndex {
		t.Errorf("with everything in the index, the plan is %+v after %d look-ups", again, r.world.Count(sandbox.PartPLC, "")-looked-job.TotalRepos)
	}
}

func TestPlanOfMoreThanALookCanTellIsEstimated(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRigWith(t, sandbox.Config{
		Seed: 62, Repos: 2300, Hosts: 8, Skew: true,
		Collections: []sandbox.Collection{{NSID: status, Share: 0.9, MinRecords: 1, MaxRecords: 1}},
	}, options{network: network.Config{HostRPS: 10_000}})
	p := r.plan(jobs.Request{})
	if p.ReposFrom != api.SourceRelay || p.HostsFrom != api.SourceRelay || p.Repos != 2300 || p.Hosts != 8 || p.Sampled != 0 {
		t.Errorf("the plan of everything is %+v", p)
	}
	if n := r.world.Count(sandbox.PartPLC, "") + r.world.Count(sandbox.PartRelay, ""); n != 3 {
		t.Errorf("%d requests for the plan of everything", n)
	}
	p = r.plan(jobs.Request{Collection: status})
	if p.Exact() || p.ReposFrom != api.SourceRelay || p.HostsFrom != api.SourceSample || p.Sampled != 200 {
		t.Errorf("the plan is %+v", p)
	}
	if n := r.world.Count(sandbox.PartPLC, ""); n != 200 {
		t.Errorf("%d look-ups", n)
	}
	if n := r.world.Count(sandbox.PartRelay, "") - 3; n != 3 {
		t.Errorf("%d requests to the relay", n)
	}
	r.world.SetRelay(sandbox.RelayNoEstimates)
	if floor := r.plan(jobs.Request{Collection: status}); floor.ReposFrom != api.SourceAtLeast || floor.Repos != 2000 || floor.HostsFrom != api.SourceSample {
		t.Errorf("where the relay does not count, the plan is %+v", floor)
	}
	r.world.SetRelay(sandbox.RelayUp)
	job := r.complete(jobs.Request{Collection: status})
	hosts, err := r.store.Jobs.JobHosts(t.Context(), job.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if p.Repos != job.TotalRepos || p.Bottleneck.Host != hosts[0].Host || p.Bottleneck.Role != api.RolePDS {
		t.Errorf("planned %d repos, most at %+v; the job found %d, most at %+v", p.Repos, p.Bottleneck, job.TotalRepos, hosts[0])
	}
	// Half of the repos are at this host: the standard deviation is 3.5 points.
	if got := float64(p.Bottleneck.Repos) / float64(hosts[0].Total); math.Abs(got-1) > 0.4 {
		t.Errorf("planned %d repos at the largest host, there are %d", p.Bottleneck.Repos, hosts[0].Total)
	}

	// What a job has found is known from then on.
	looked := r.world.Count(sandbox.PartPLC, "")
	again := r.plan(jobs.Request{Collection: status})
	if again.HostsFrom != api.SourceJob || again.EarlierJob != job.ID || r.world.Count(sandbox.PartPLC, "") != looked {
		t.Errorf("the second plan is %+v", again)
	}
	if again.Bottleneck.Repos != hosts[0].Total || again.Hosts != int64(len(hosts)) {
		t.Errorf("the second plan has %+v on %d hosts, the job found %+v on %d", again.Bottleneck, again.Hosts, hosts[0], len(hosts))
	}
	r.world.SetRelay(sandbox.RelayNoEstimates)
	if again = r.plan(jobs.Request{Collection: status}); again.ReposFrom != api.SourceJob || again.Repos != job.TotalRepos {
		t.Errorf("where the relay does not count, the plan is %+v", again)
	}
}

func TestPlanOfASmallNetworkKnowsEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 64, Repos: 90, Hosts: 3})
	p := r.plan(jobs.Request{})
	if p.ReposFrom != api.SourceListing || p.HostsFrom != api.SourceLookup || p.RequestsFrom != api.SourceFixed || p.Repos != 90 || p.Hosts != 3 || len(p.Targets) != 0 {
		t.Errorf("the plan is %+v", p)
	}
	if l := loads(p)["pds "+r.world.HostURLs()[0]]; l.Repos != 30 || l.Requests != 31 {
		t.Errorf("a host with 30 repos has %+v", l)
	}
	if l := loads(p)["plc "+r.world.PLCURL()]; l.Requests != 91 {
		t.Errorf("the directory has %+v for 90 repos, each looked up once", l)
	}
}

func TestPlanOfSeveralCollectionsCountsARepoOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 65, Repos: 120, Hosts: 3})
	for _, c := range []syntax.NSID{status, notes} {
		if err := r.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	p := r.plan(jobs.Request{})
	listed, looked := r.world.Count(sandbox.PartRelay, ""), r.world.Count(sandbox.PartPLC, "")
	job := r.complete(jobs.Request{})
	if p.Repos != job.TotalRepos || len(p.Targets) != 2 || !p.Exact() {
		t.Errorf("planned %+v, the job found %d repos", p, job.TotalRepos)
	}
	done := r.world.Count(sandbox.PartPDS, "") + r.world.Count(sandbox.PartRelay, "") + r.world.Count(sandbox.PartPLC, "") - listed - looked
	if off := float64(p.Requests) / float64(done); math.Abs(off-1) > 0.1 {
		t.Errorf("planned %d requests, there were %d", p.Requests, done)
	}
}

func TestPlanOfNamedReposAsksNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 66, Repos: 10, Hosts: 2})
	known, unknown := r.world.Repos()[0], r.world.Repos()[1]
	r.complete(jobs.Request{DID: known.DID})
	asked := func() (n int64) {
		for _, part := range []sandbox.Part{sandbox.PartPDS, sandbox.PartPLC, sandbox.PartRelay} {
			n += r.world.Count(part, "")
		}
		return n
	}
	before := asked()
	p := r.plan(jobs.Request{DID: known.DID, Collection: status})
	if !p.Exact() || p.Repos != 1 || p.Hosts != 1 || loads(p)["pds "+known.Host].Requests != 3 {
		t.Errorf("the plan of a known repo is %+v", p)
	}
	p = r.plan(jobs.Request{DIDs: []syntax.DID{known.DID, unknown.DID}})
	if p.Exact() || p.HostsFrom != api.SourceAssumed || p.Repos != 2 || p.Hosts != 2 || loads(p)["pds "].Repos != 1 || loads(p)["pds "].Requests != 2 {
		t.Errorf("the plan of an unknown repo is %+v", p)
	}
	if n := asked(); n != before {
		t.Errorf("%d requests were made", n-before)
	}
}

func TestPlanOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 67, Repos: 5})
	p := r.plan(jobs.Request{Collection: "com.example.unheard"})
	if !p.Exact() || p.Repos != 0 || p.Hosts != 0 || p.Requests != 1 || p.Bottleneck.Role != api.RoleRelay {
		t.Errorf("the plan is %+v", p)
	}
}

func TestPlanCountsReposThatHaveNoHost(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 68, Repos: 20, Hosts: 2})
	gone := 0
	for _, repo := range r.world.Repos() {
		if len(r.world.TruthOf(repo.DID, status)) > 0 && gone < 4 {
			if err := r.world.Tombstone(repo.DID); err != nil {
				t.Fatal(err)
			}
			gone++
		}
	}
	p := r.plan(jobs.Request{Collection: status})
	housed := int64(0)
	for _, l := range p.Loads {
		if l.Role == api.RolePDS {
			housed += l.Repos
		}
	}
	if !p.Exact() || housed != p.Repos-4 || p.Hosts != 2 {
		t.Errorf("%d of %d repos have a host, 4 have none: %+v", housed, p.Repos, p)
	}
}

func TestPlanFailsWhereTheJobWould(t *testing.T) {
	t.Parallel()
	for mode, text := range map[sandbox.RelayMode]string{
		sandbox.RelayDown: "reachable from here", sandbox.RelayBadGateway: "http_5xx", sandbox.RelayNoCollections: "choose one that does with --relay",
		sandbox.RelayNotFound: "choose one that does with --relay",
	} {
		r := newRig(t, sandbox.Config{Seed: 69, Repos: 5})
		r.world.SetRelay(mode)
		_, err := r.b.Plan(t.Context(), jobs.Request{Collection: status})
		var failed *backfill.PlanError
		if !errors.As(err, &failed) || !strings.Contains(failed.Text, text) || !strings.HasSuffix(failed.Text, "then plan again") {
			t.Errorf("relay mode %d: %v", mode, err)
		}
	}
}

func TestPlanWaitsForNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 70, Repos: 5})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartRelay {
			return sandbox.Fault{Name: "slow down", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"300"}}}
		}
		return sandbox.Fault{}
	})
	_, err := r.b.Plan(t.Context(), jobs.Request{Collection: status})
	var failed *backfill.PlanError
	if !errors.As(err, &failed) || time.Until(failed.Until) < 4*time.Minute || !strings.Contains(failed.Text, "asked to be left alone until") {
		t.Errorf("a relay that asks for five minutes: %v", err)
	}
	r.world.SetFault(nil)

	r = newRig(t, sandbox.Config{Seed: 71, Repos: 5})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPLC {
			return sandbox.Fault{Name: "broken", Status: http.StatusInternalServerError}
		}
		return sandbox.Fault{}
	})
	if _, err = r.b.Plan(t.Context(), jobs.Request{Collection: status}); !errors.As(err, &failed) || !strings.Contains(failed.Text, "--plc") {
		t.Errorf("a directory that is broken: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 16)
	r.world.SetFault(func(sandbox.Request) sandbox.Fault {
		asked <- struct{}{}
		return sandbox.Fault{Hang: true}
	})
	go func() { <-asked; cancel() }()
	if _, err = r.b.Plan(ctx, jobs.Request{Collection: status}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up while the relay hangs: %v", err)
	}
}

func TestPlanSaysHowManyJobsComeFirst(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 72, Repos: 5}, options{config: backfill.Config{MaxJobs: 1}})
	hang := func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPDS {
			return sandbox.Fault{Hang: true}
		}
		return sandbox.Fault{}
	}
	r.world.SetFault(hang)
	for want := range 3 {
		if p := r.plan(jobs.Request{Collection: status}); p.Ahead != want {
			t.Errorf("%d jobs come first, want %d", p.Ahead, want)
		}
		r.create(jobs.Request{Collection: status})
	}
	r.pause(r.create(jobs.Request{Collection: status}))
	if p := r.plan(jobs.Request{Collection: status}); p.Ahead != 3 {
		t.Errorf("%d jobs come first, want 3: a paused one is in nobody's way", p.Ahead)
	}
	if p := r.plan(jobs.Request{DID: r.world.Repos()[0].DID}); p.Ahead != 0 {
		t.Errorf("%d jobs come before one that names its repo", p.Ahead)
	}
}
