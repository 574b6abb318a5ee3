package cmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
)

func newPlanCommand(p *program, o *clientOptions) *cobra.Command {
	var collection string
	var repos repoNames
	var limit int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell what a job would take, without starting it",
		Long: `Plan takes what create takes, and tells what the job would come to: how many repos,
hosts and requests, how long at the hosts' limits, and which host takes longest. The
server asks the relay for a few pages, and the directory for at most 200 repos; every
figure says what it comes from. Nothing is started.`,
		Example: `  appview backfill plan --collection xyz.statusphere.status
  appview backfill plan --collection xyz.statusphere.status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return service.Usagef("--limit is %d, it must not be negative", limit)
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			dids, err := repos.dids(cmd, p)
			if err != nil {
				return err
			}
			path := withQuery("/admin/backfill/plan", "collection", collection, "dids", strings.Join(dids, ","))
			if cmd.Flags().Changed("collection") && collection == "" {
				path += "?collection=" // which the server refuses: leaving it out would mean everything
			}
			var plan api.Plan
			answer, err := c.get(cmd.Context(), path, &plan)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printPlan(w, plan, limit) })
		},
	}
	cmd.Flags().StringVar(&collection, "collection", "", "only this collection")
	repos.addFlags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 10, "name at most so many hosts, those that take longest first; up to 100")
	return cmd
}

func printPlan(w io.Writer, p api.Plan, limit int) error {
	covers := term.Join(p.Targets)
	switch {
	case covers == "":
		covers = "all collections"
	case p.Collection == nil:
		covers = "the tracked collections: " + covers
	}
	if p.Scope == api.ScopeDIDs {
		covers += " of the repos that are named"
	}
	fields := []term.Field{
		{"covers", covers},
		{"repos", figureOf(p, p.Repos, p.Basis.Repos)},
		{"hosts", figureOf(p, p.Hosts, p.Basis.Hosts)},
		{"requests", figureOf(p, p.Requests, p.Basis.Requests)},
	}
	if b := p.Bottleneck; b != nil {
		fields = append(fields, term.Field{"time", "about " + term.Span(p.Seconds) + ", if everybody is asked as fast as may be"},
			term.Field{"bottleneck", fmt.Sprintf("%s: %s repos, %s requests", onWhom(*b), term.Count(b.Repos), term.Count(b.Requests))})
	}
	if p.JobsBefore > 0 {
		fields = append(fields, term.Field{"before it", term.Count(p.JobsBefore) + " other jobs have to end"})
	}
	if p.Repos == 0 {
		fields = append(fields, term.Field{"note", "no repo is known to have such records: look at how the collection is spelled"})
	}
	if err := term.PrintFields(w, fields); err != nil || len(p.PerHost) == 0 || limit == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := term.Table{Columns: []term.Column{
		term.Prose("WHO"), term.Figure("REPOS"), term.Figure("REQUESTS"), term.Figure("TIME"), term.Whole("STATE"), term.Whole("PAUSED UNTIL"),
	}}
	for _, l := range p.PerHost[:min(limit, len(p.PerHost))] {
		t.Add(onWhom(l.Load), term.Count(l.Repos), term.Count(l.Requests), term.Span(l.Seconds), string(l.State), term.Text(l.PausedUntil, term.Unknown))
	}
	return t.Print(w)
}

// roughly is an estimate without the digits of which it knows nothing.
func roughly(n int64) int64 {
	for step := int64(10); ; step *= 10 {
		if n < 10*step {
			return (n + step/20) / (step / 10) * (step / 10)
		}
	}
}

// onWhom says who a load is on.
func onWhom(l api.Load) string {
	host := term.Text(l.Host, "a host that is not known yet")
	switch l.Role {
	case api.RolePLC:
		return host + " (the directory)"
	case api.RoleRelay:
		return host + " (the relay)"
	case api.RoleMaxHosts:
		return "this server reads from --max-hosts hosts at once, and there are more"
	default:
		return host
	}
}

// figureOf is a figure of the plan, and what it comes from.
func figureOf(p api.Plan, n int64, from api.Source) string {
	job := "an earlier job"
	if p.Basis.EarlierJob != nil {
		job = "job " + p.Basis.EarlierJob.String()
	}
	near := roughly(n)
	about := "about " + term.Count(near)
	switch from {
	case api.SourceNamed:
		return term.Count(n) + ", which are named"
	case api.SourceListing:
		return term.Count(n) + ", by the relay's listing"
	case api.SourceLookup:
		return term.Count(n)
	case api.SourceAtLeast:
		return "at least " + term.Count(n) + ": the listing goes on, and the relay does not say how far"
	case api.SourceRelay:
		return about + ", as the relay has counted"
	case api.SourceJob:
		return about + ", as " + job + " found"
	case api.SourceSample:
		return fmt.Sprintf("%s, estimated from %s repos", about, term.Count(p.Basis.SampledRepos))
	case api.SourceIndex:
		return about + ", by the records that repos have in the index"
	case api.SourceAssumed:
		return about + ", if each repo has one page of records"
	default:
		return about
	}
}
