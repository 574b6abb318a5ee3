package server

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store"
)

// Bounds of plans.
const (
	// maxPlans bounds the plans that are made at once: each asks the network.
	maxPlans = 2
	// maxPlanHosts bounds the hosts that a plan names.
	maxPlanHosts = 100
)

// Planner tells beforehand what a job would come to.
type Planner interface {
	// Plan starts nothing. It may ask the network, within bounds, and fails with a
	// PlanRefused where somebody does not answer whom the job would need too.
	Plan(ctx context.Context, req store.Request) (Plan, error)
}

// Plan is what a job would come to.
type Plan struct {
	Targets                []syntax.NSID // none: all that a repo has
	Repos, Hosts, Requests int64
	Time                   time.Duration
	Bottleneck             PlanLoad   // without a role if nobody is asked anything
	Loads                  []PlanLoad // everybody who is asked, those that take longest first
	Exact                  bool       // the repos and their hosts are known

	// What the figures come from.
	ReposFrom, HostsFrom, RequestsFrom string

	Sampled    int
	EarlierJob uuid.UUID
	Ahead      int // jobs that have to end first
}

// PlanLoad is what a job would ask of somebody.
type PlanLoad struct {
	Host            string // empty: no host, or not known which
	Role            string
	Repos, Requests int64
	Time            time.Duration
}

// PlanRefused says why no plan was made.
type PlanRefused struct {
	Text  string
	Until time.Time // before which it is no use to ask again; zero: not known
}

func (e PlanRefused) Error() string { return e.Text }

// planBody is a plan as it is shown.
type planBody struct {
	Collection *string       `json:"collection"`
	Scope      string        `json:"scope"`
	Targets    []syntax.NSID `json:"targets"`
	Repos      int64         `json:"repos"`
	Hosts      int64         `json:"hosts"`
	Requests   int64         `json:"requests"`
	Seconds    int64         `json:"seconds"`
	Bottleneck *planLoadBody `json:"bottleneck"`
	Estimate   bool          `json:"estimate"`
	Basis      planBasis     `json:"basis"`
	JobsBefore int           `json:"jobs_before"`
	PerHost    []planHost    `json:"per_host"`
}

// planBasis says what the figures of a plan come from.
type planBasis struct {
	Repos        string     `json:"repos"`
	Hosts        string     `json:"hosts"`
	Requests     string     `json:"requests"`
	SampledRepos int        `json:"sampled_repos"`
	EarlierJob   *uuid.UUID `json:"earlier_job"`
}

type planLoadBody struct {
	Host     *string `json:"host"`
	Role     string  `json:"role"`
	Repos    int64   `json:"repos"`
	Requests int64   `json:"requests"`
	Seconds  int64   `json:"seconds"`
}

// planHost is a load with what is known of the host now.
type planHost struct {
	planLoadBody

	State       HostState `json:"state"`
	PausedUntil *string   `json:"paused_until"`
}

// planBackfill answers with what a job would come to.
func (s *Server) planBackfill(r *http.Request) (reply, error) {
	params, err := query(r, "collection", "did", "dids")
	if err != nil {
		return reply{}, err
	}
	var dids []string
	if text := params["dids"]; text != "" {
		if dids = strings.Split(text, ","); slices.Contains(dids, "") {
			return reply{}, badRequest("dids must be DIDs with one comma between each two")
		}
	}
	req, err := parseRequest(params["collection"], params["did"], dids)
	if err != nil {
		return reply{}, err
	}
	free, err := take(s.plans, "plans")
	if err != nil {
		return reply{}, err
	}
	defer free()
	plan, err := s.cfg.Planner.Plan(r.Context(), req)
	var refused PlanRefused
	switch {
	case errors.As(err, &refused):
		return reply{}, s.refusedPlan(refused)
	case err != nil:
		return reply{}, err
	}
	return ok(s.newPlanBody(req, plan)), nil
}

func (s *Server) newPlanBody(req store.Request, p Plan) planBody {
	body := planBody{
		Collection: known(string(req.Collection), req.Collection != ""),
		Scope:      scopeNetwork,
		Targets:    append([]syntax.NSID{}, p.Targets...),
		Repos:      p.Repos, Hosts: p.Hosts, Requests: p.Requests, Seconds: seconds(p.Time),
		Estimate: !p.Exact,
		Basis: planBasis{
			Repos: p.ReposFrom, Hosts: p.HostsFrom, Requests: p.RequestsFrom, SampledRepos: p.Sampled,
			EarlierJob: known(p.EarlierJob, p.EarlierJob != uuid.Nil),
		},
		JobsBefore: p.Ahead,
		PerHost:    []planHost{},
	}
	if !req.Network() {
		body.Scope = scopeDIDs
	}
	if p.Bottleneck.Role != "" {
		slowest := newPlanLoadBody(p.Bottleneck)
		body.Bottleneck = &slowest
	}
	for _, l := range p.Loads[:min(len(p.Loads), maxPlanHosts)] {
		h := planHost{planLoadBody: newPlanLoadBody(l), State: HostActive}
		if s.cfg.Hosts != nil && l.Host != "" {
			var until time.Time
			h.State, until = s.cfg.Hosts.HostState(l.Host)
			h.PausedUntil = known(stamp(until), !until.IsZero())
		}
		body.PerHost = append(body.PerHost, h)
	}
	return body
}

func newPlanLoadBody(l PlanLoad) planLoadBody {
	return planLoadBody{Host: known(l.Host, l.Host != ""), Role: l.Role, Repos: l.Repos, Requests: l.Requests, Seconds: seconds(l.Time)}
}

// seconds is a duration in whole seconds, begun ones counting.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// refusedPlan is the answer in place of a plan: somebody else is to blame, or is
// to be waited for.
func (s *Server) refusedPlan(e PlanRefused) failure {
	if e.Until.IsZero() {
		return failure{status: http.StatusBadGateway, text: e.Text}
	}
	f := failure{status: http.StatusServiceUnavailable, text: e.Text}
	f.header("Retry-After", strconv.FormatInt(max(1, seconds(e.Until.Sub(s.cfg.Now()))), 10))
	return f
}
