package service

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill"
	"appview/internal/api"
	"appview/server/control"
	"appview/store/jobs"
)

// plans lets the server tell what a job would come to.
type plans struct{ backfill *backfill.Backfill }

// Plan makes a plan, as the API shows it.
func (p plans) Plan(ctx context.Context, req jobs.Request) (api.Plan, error) {
	plan, err := p.backfill.Plan(ctx, req)
	var refused *backfill.PlanError
	switch {
	case errors.As(err, &refused):
		return api.Plan{}, control.PlanRefused{Text: refused.Text, Until: refused.Until}
	case err != nil:
		return api.Plan{}, err
	}
	answer := api.Plan{
		Collection: api.Known(string(req.Collection), req.Collection != ""), Scope: api.ScopeNetwork,
		Targets: append([]syntax.NSID{}, plan.Targets...), // none is [], not null
		Repos:   plan.Repos, Hosts: plan.Hosts, Requests: plan.Requests, Seconds: seconds(plan.Time), Estimate: !plan.Exact(),
		Basis: api.PlanBasis{
			Repos: plan.ReposFrom, Hosts: plan.HostsFrom, Requests: plan.RequestsFrom, SampledRepos: plan.Sampled,
			EarlierJob: api.Known(plan.EarlierJob, plan.EarlierJob != uuid.Nil),
		},
		JobsBefore: plan.Ahead,
		PerHost:    make([]api.HostLoad, len(plan.Loads)),
	}
	if !req.Network() {
		answer.Scope = api.ScopeDIDs
	}
	if plan.Bottleneck.Role != "" {
		answer.Bottleneck = new(load(plan.Bottleneck))
	}
	for i, l := range plan.Loads {
		answer.PerHost[i].Load = load(l)
	}
	return answer, nil
}

func load(l backfill.Load) api.Load {
	return api.Load{Host: api.Known(l.Host, l.Host != ""), Role: l.Role, Repos: l.Repos, Requests: l.Requests, Seconds: seconds(l.Time)}
}

// seconds is a duration in whole seconds, begun ones counting.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
