package cmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// planView is a plan as the server shows it.
type planView struct {
	Collection *string    `json:"collection"`
	Scope      string     `json:"scope"`
	Targets    []string   `json:"targets"`
	Repos      int64      `json:"repos"`
	Hosts      int64      `json:"hosts"`
	Requests   int64      `json:"requests"`
	Seconds    int64      `json:"seconds"`
	Bottleneck *loadView  `json:"bottleneck"`
	Basis      planBasis  `json:"basis"`
	JobsBefore int64      `json:"jobs_before"`
	PerHost    []loadView `json:"per_host"`
}

// planBasis says what the figures of a plan come from.
type planBasis struct {
	Repos        string  `json:"repos"`
	Hosts        string  `json:"hosts"`
	Requests     string  `json:"requests"`
	SampledRepos int64   `json:"sampled_repos"`
	EarlierJob   *string `json:"earlier_job"`
}

// loadView is what a job would ask of somebody.
type loadView struct {
	Host        *string `json:"host"`
	Role        string  `json:"role"`
	Repos       int64   `json:"repos"`
	Requests    int64   `json:"requests"`
	Seconds     int64   `json:"seconds"`
	State       string  `json:"state"`
	PausedUntil *string `json:"paused_until"`
}

func newPlanCommand(p *program, o *clientOptions) *cobra.Command {
	var collection string
	var names repoNames
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
				return usagef("--limit is %d, it must not be negative", limit)
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			dids, err := names.dids(cmd, p)
			if err != nil {
				return err
			}
			path := withQuery("/admin/backfill/plan", "collection", collection, "dids", strings.Join(dids, ","))
			if cmd.Flags().Changed("collection") && collection == "" {
				path += "?collection=" // which the server refuses: leaving it out would mean everything
			}
			var plan planView
			answer, err := c.get(cmd.Context(), path, &plan)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printPlan(w, plan, limit) })
		},
	}
	cmd.Flags().StringVar(&collection, "collection", "", "only this collection")
	names.addFlags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 10, "name at most so many hosts, those that take longest first; up to 100")
	return cmd
}

func printPlan(w io.Writer, p planView, limit int) error {
	covers := strings.Join(p.Targets, ", ")
	switch {
	case covers == "":
		covers = "all collections"
	case p.Collection == nil:
		covers = "the tracked collections: " + covers
	}
	if p.Scope == "dids" {
		covers += " of the repos that are named"
	}
	fields := []field{
		{"covers", covers},
		{"repos", p.figure(p.Repos, p.Basis.Repos)},
		{"hosts", p.figure(p.Hosts, p.Basis.Hosts)},
		{"requests", p.figure(p.Requests, p.Basis.Requests)},
	}
	if b := p.Bottleneck; b != nil {
		fields = append(fields, field{"time", "about " + span(p.Seconds) + ", if everybody is asked as fast as may be"},
			field{"bottleneck", fmt.Sprintf("%s: %s repos, %s requests", b.name(), number(&b.Repos), number(&b.Requests))})
	}
	if p.JobsBefore > 0 {
		fields = append(fields, field{"before it", number(&p.JobsBefore) + " other jobs have to end"})
	}
	if p.Repos == 0 {
		fields = append(fields, field{"note", "no repo is known to have such records: look at how the collection is spelled"})
	}
	if err := printFields(w, fields); err != nil || len(p.PerHost) == 0 || limit == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := table{columns: []column{
		{"WHO", prose}, {"REPOS", figure}, {"REQUESTS", figure}, {"TIME", figure}, {"STATE", whole}, {"PAUSED UNTIL", whole},
	}}
	for _, l := range p.PerHost[:min(limit, len(p.PerHost))] {
		t.add(l.name(), number(&l.Repos), number(&l.Requests), span(l.Seconds), l.State, text(l.PausedUntil, unknown))
	}
	return t.print(w)
}

// roughly is an estimate without the digits of which it knows nothing.
func roughly(n int64) int64 {
	for step := int64(10); ; step *= 10 {
		if n < 10*step {
			return (n + step/20) / (step / 10) * (step / 10)
		}
	}
}

// name says who a load is on.
func (l loadView) name() string {
	host := text(l.Host, "a host that is not known yet")
	switch l.Role {
	case "plc":
		return host + " (the directory)"
	case "relay":
		return host + " (the relay)"
	case "max_hosts":
		return "this server reads from --max-hosts hosts at once, and there are more"
	default:
		return host
	}
}

// figure is a figure of the plan, and what it comes from.
func (p planView) figure(n int64, from string) string {
	job := "an earlier job"
	if p.Basis.EarlierJob != nil {
		job = "job " + *p.Basis.EarlierJob
	}
	near := roughly(n)
	about := "about " + number(&near)
	switch from {
	case "named":
		return number(&n) + ", which are named"
	case "listing":
		return number(&n) + ", by the relay's listing"
	case "lookup":
		return number(&n)
	case "floor":
		return "at least " + number(&n) + ": the listing goes on, and the relay does not say how far"
	case "relay":
		return about + ", as the relay has counted"
	case "job":
		return about + ", as " + job + " found"
	case "sample":
		return fmt.Sprintf("%s, estimated from %s repos", about, number(&p.Basis.SampledRepos))
	case "index":
		return about + ", by the records that repos have in the index"
	case "assumed":
		return about + ", if each repo has one page of records"
	default:
		return about
	}
}
