package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/server/control"
	"appview/store/jobs"
)

// planHosts is how many hosts a plan names at most.
const planHosts = 100

// planned makes every plan of the rig the given one.
func (r *rig) planned(plan func(context.Context, jobs.Request) (api.Plan, error)) {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	r.jobs.plan = plan
}

func TestPlanShowsWhatAJobComesTo(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour)
	r := newRig(t, func(c *Config) { c.Hosts = someHosts{"https://slow.example": until} })
	job := uuid.New()
	var asked jobs.Request
	r.planned(func(_ context.Context, req jobs.Request) (api.Plan, error) {
		asked = req
		slow := api.Load{Host: new("https://slow.example"), Role: api.RolePDS, Repos: 7, Requests: 21, Seconds: 3}
		loads := []api.HostLoad{{Load: slow}}
		for range planHosts {
			loads = append(loads, api.HostLoad{Load: api.Load{Role: api.RolePDS, Requests: 1}})
		}
		return api.Plan{
			Collection: new(status.String()), Scope: api.ScopeNetwork, Targets: []syntax.NSID{status},
			Repos: 9, Hosts: 101, Requests: 30, Seconds: 3, Estimate: true, Bottleneck: &slow, PerHost: loads,
			Basis: api.PlanBasis{Repos: "job", Hosts: "sample", Requests: "index", SampledRepos: 5, EarlierJob: &job}, JobsBefore: 2,
		}, nil
	})
	a := r.get("/admin/backfill/plan?collection=" + status.String())
	var got api.Plan
	a.decode(t, &got)
	if asked.Collection != status || !asked.Network() {
		t.Errorf("asked for %+v", asked)
	}
	if got.Repos != 9 || got.Hosts != 101 || got.Requests != 30 || got.Seconds != 3 || !got.Estimate || got.JobsBefore != 2 || got.Scope != "network" || *got.Basis.EarlierJob != job {
		t.Errorf("got %+v", got)
	}
	if b := got.Bottleneck; b == nil || *b.Host != "https://slow.example" || b.Role != api.RolePDS {
		t.Errorf("bottleneck %+v", b)
	}
	if len(got.PerHost) != planHosts || got.PerHost[0].State != api.HostParked || *got.PerHost[0].PausedUntil != api.Stamp(until) || got.PerHost[1].Host != nil || got.PerHost[1].State != api.HostActive {
		t.Errorf("%d hosts, first %+v", len(got.PerHost), got.PerHost[:2])
	}

	r.planned(nil)
	a = r.get("/admin/backfill/plan?dids=" + string(alice) + "," + string(bob))
	a.decode(t, &got)
	if a.status != http.StatusOK || got.Bottleneck != nil {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if n := r.jobsStored(); n != 0 {
		t.Errorf("%d jobs were made", n)
	}
}

// someHosts are hosts that are parked.
type someHosts map[string]time.Time

func (h someHosts) HostState(url string) (api.HostState, time.Time) {
	if until, is := h[url]; is {
		return api.HostParked, until
	}
	return api.HostActive, time.Time{}
}

func TestPlanRefusesWhatAJobWould(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for query, text := range map[string]string{
		"collection=x": "NSID", "did=x": "DID", "dids=x": "DID", "dids=": "dids is empty", "dids=" + string(alice) + ",": "one comma between", "status=running": "unknown parameter",
		"did=" + string(alice) + "&dids=" + string(bob): "did and dids were both given", "dids=" + strings.Repeat(string(alice)+",", 500) + string(alice): "names 501 repos",
	} {
		r.get("/admin/backfill/plan?"+query).want(t, http.StatusBadRequest, text)
	}
}

func TestPlanSaysWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fails := func(err error) result {
		r.planned(func(context.Context, jobs.Request) (api.Plan, error) { return api.Plan{}, err })
		return r.get("/admin/backfill/plan")
	}
	fails(control.PlanRefused{Text: "relay is down: start it"}).want(t, http.StatusBadGateway, "relay is down: start it")
	a := fails(control.PlanRefused{Text: "wait a minute", Until: time.Now().Add(time.Minute)})
	a.want(t, http.StatusServiceUnavailable, "wait a minute")
	if after := a.header.Get("Retry-After"); after != "60" && after != "59" {
		t.Errorf("Retry-After is %s", after)
	}
	if a = fails(control.PlanRefused{Text: "wait", Until: time.Now().Add(-time.Minute)}); a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %s", a.header.Get("Retry-After"))
	}
	fails(errors.New("a bug")).want(t, http.StatusInternalServerError, "its log tells what")
}

func TestPlansAreMadeTwoAtOnceAndGivenUpWithTheClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	begun, ended := make(chan struct{}, answer.MaxPlans), make(chan error, answer.MaxPlans)
	r.planned(func(ctx context.Context, _ jobs.Request) (api.Plan, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return api.Plan{}, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	for range answer.MaxPlans {
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http.URL+"/admin/backfill/plan", http.NoBody)
			if err != nil {
				ended <- err
				return
			}
			req.Header.Set("Authorization", "Bearer "+testKey)
			if res, err := r.http.Client().Do(req); err == nil {
				_ = res.Body.Close()
			}
		}()
		<-begun
	}
	a := r.get("/admin/backfill/plan")
	a.want(t, http.StatusTooManyRequests, "as many plans as may run at once (2)")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	cancel()
	for range answer.MaxPlans {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a plan ended with %v", err)
		}
	}
}
