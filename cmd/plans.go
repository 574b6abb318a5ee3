package cmd

import (
	"context"
	"errors"

	"appview/backfill"
	"appview/server"
	"appview/store"
)

// plans lets the server tell what a job would come to.
type plans struct{ backfill *backfill.Backfill }

// Plan makes a plan, in the words of the server.
func (p plans) Plan(ctx context.Context, req store.Request) (server.Plan, error) {
	plan, err := p.backfill.Plan(ctx, req)
	var refused *backfill.PlanError
	switch {
	case errors.As(err, &refused):
		return server.Plan{}, server.PlanRefused{Text: refused.Text, Until: refused.Until}
	case err != nil:
		return server.Plan{}, err
	}
	answer := server.Plan{
		Targets: plan.Targets, Repos: plan.Repos, Hosts: plan.Hosts, Requests: plan.Requests, Time: plan.Time,
		Bottleneck: load(plan.Bottleneck), Exact: plan.Exact(),
		ReposFrom: string(plan.ReposFrom), HostsFrom: string(plan.HostsFrom), RequestsFrom: string(plan.RequestsFrom),
		Sampled: plan.Sampled, EarlierJob: plan.EarlierJob, Ahead: plan.Ahead,
	}
	for _, l := range plan.Loads {
		answer.Loads = append(answer.Loads, load(l))
	}
	return answer, nil
}

func load(l backfill.Load) server.PlanLoad {
	return server.PlanLoad{Host: l.Host, Role: string(l.Role), Repos: l.Repos, Requests: l.Requests, Time: l.Time}
}
