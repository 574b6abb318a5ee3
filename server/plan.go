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

	"appview/internal/api"
	"appview/store/jobs"
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
	// PlanRefused where somebody does not answer whom the job would need too. What is
	// known of the hosts now is not its to say.
	Plan(ctx context.Context, req jobs.Request) (api.Plan, error)
}

// PlanRefused says why no plan was made.
type PlanRefused struct {
	Text  string
	Until time.Time // before which it is no use to ask again; zero: not known
}

func (e PlanRefused) Error() string { return e.Text }

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
	plan.PerHost = plan.PerHost[:min(len(plan.PerHost), maxPlanHosts)]
	for i := range plan.PerHost {
		h := &plan.PerHost[i]
		h.State = api.HostActive
		if s.cfg.Hosts != nil && h.Host != nil {
			var until time.Time
			h.State, until = s.cfg.Hosts.HostState(*h.Host)
			h.PausedUntil = api.Known(api.Stamp(until), !until.IsZero())
		}
	}
	return ok(plan), nil
}

// refusedPlan is the answer in place of a plan: somebody else is to blame, or is
// to be waited for.
func (s *Server) refusedPlan(e PlanRefused) failure {
	if e.Until.IsZero() {
		return failure{status: http.StatusBadGateway, text: e.Text}
	}
	f := failure{status: http.StatusServiceUnavailable, text: e.Text}
	f.header("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.Until.Sub(s.cfg.Now()).Seconds())))))
	return f
}
