package control

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
	"appview/server/answer"
	"appview/store/jobs"
)

// Bounds of plans.
const (
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
func (ctl *Control) planBackfill(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "collection", "did", "dids")
	if err != nil {
		return answer.Reply{}, err
	}
	var dids []string
	if text := params["dids"]; text != "" {
		if dids = strings.Split(text, ","); slices.Contains(dids, "") {
			return answer.Reply{}, answer.BadRequest("dids must be DIDs with one comma between each two")
		}
	}
	req, err := parseRequest(params["collection"], params["did"], dids)
	if err != nil {
		return answer.Reply{}, err
	}
	free, err := answer.TakePlace(ctl.out.Bounds.Plans, "plans")
	if err != nil {
		return answer.Reply{}, err
	}
	defer free()
	plan, err := ctl.cfg.Planner.Plan(r.Context(), req)
	var refused PlanRefused
	switch {
	case errors.As(err, &refused):
		return answer.Reply{}, ctl.refusedPlan(refused)
	case err != nil:
		return answer.Reply{}, err
	}
	plan.PerHost = plan.PerHost[:min(len(plan.PerHost), maxPlanHosts)]
	for i := range plan.PerHost {
		h := &plan.PerHost[i]
		h.State = api.HostActive
		if ctl.cfg.Hosts != nil && h.Host != nil {
			var until time.Time
			h.State, until = ctl.cfg.Hosts.HostState(*h.Host)
			h.PausedUntil = api.Known(api.Stamp(until), !until.IsZero())
		}
	}
	return answer.OK(plan), nil
}

// refusedPlan is the answer in place of a plan: somebody else is to blame, or is
// to be waited for.
func (ctl *Control) refusedPlan(e PlanRefused) answer.Failure {
	if e.Until.IsZero() {
		return answer.Failure{Status: http.StatusBadGateway, Text: e.Text}
	}
	f := answer.Failure{Status: http.StatusServiceUnavailable, Text: e.Text}
	f.Header("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.Until.Sub(ctl.cfg.Now()).Seconds())))))
	return f
}
