package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
)

// reposPage is the most repos that a server gives at once.
const reposPage = 1000

// rawRepos is a page of a job's repos, each as it came.
type rawRepos = api.RepoPage[json.RawMessage]

func newJobReposCommand(p *program, o *clientOptions) *cobra.Command {
	var state, cursor string
	var limit int
	cmd := &cobra.Command{
		Use:   "repos [ID]",
		Short: "List the repos of a job, in DID order: where each stands, and why",
		Long:  `Repos lists the repos of a job, or without an ID of the one that was created last.`,
		Example: `  appview backfill repos 6c0e8a3e --state failed
  appview backfill repos --state pending --limit 1000`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return service.Usagef("--limit is %d, it must be at least 1", limit)
			}
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			list := rawRepos{Repos: []json.RawMessage{}, Cursor: cursor}
			// A page of the server may be short, or empty, without being the last.
			for first := true; first || list.Cursor != "" && len(list.Repos) < limit; first = false {
				var page rawRepos
				_, err := c.get(cmd.Context(), withQuery(jobPath(id, "repos"), "state", state, "cursor", list.Cursor,
					"limit", strconv.Itoa(min(reposPage, limit-len(list.Repos)))), &page)
				if err != nil {
					return err
				}
				list.Repos, list.Cursor = append(list.Repos, page.Repos...), page.Cursor
			}
			answer, err := json.Marshal(list)
			if err != nil {
				return fmt.Errorf("list repos: %w", err)
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printRepos(w, list) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "only those that are pending, done, empty, unavailable or failed")
	f.StringVar(&cursor, "cursor", "", "go on where another list ended")
	f.IntVar(&limit, "limit", 100, "at most so many")
	return cmd
}

func printRepos(w io.Writer, list rawRepos) error {
	t := term.Table{Empty: "no such repos", Columns: []term.Column{
		term.Whole("DID"), term.Whole("STATE"), term.Whole("REASON"), term.Figure("RECORDS"), term.Figure("ATTEMPTS"), term.Whole("NEXT ATTEMPT"), term.Prose("PDS"),
	}}
	for _, raw := range list.Repos {
		var r api.Repo
		if err := decodeAnswer(raw, &r); err != nil {
			return err
		}
		t.Add(r.DID.String(), string(r.State), term.Text(r.Reason, term.Unknown), term.Count(r.Records), term.Count(r.Attempts), term.Text(r.NextAttemptAt, term.Unknown), term.Text(r.PDS, term.Unknown))
	}
	if err := t.Print(w); err != nil || list.Cursor == "" {
		return err
	}
	_, err := fmt.Fprintf(w, "\nthere may be more: --cursor %s\n", list.Cursor)
	return err
}

func newJobHostsCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "hosts [ID]",
		Short: "List the hosts of a job, that with most repos first",
		Long: `Hosts lists the hosts on which a job, or without an ID the one that was created last,
has found repos, and how it stands with each: active, parked (it has asked for a pause)
or down until a moment, done, or stopped with the job.`,
		Example: `  appview backfill hosts
  appview backfill hosts 6c0e8a3e --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			var list api.Hosts
			answer, err := c.get(cmd.Context(), jobPath(id, "pds-summary"), &list)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Empty: "no repo was found on a host so far", Columns: []term.Column{
					term.Prose("HOST"), term.Whole("STATE"), term.Figure("REPOS"), term.Figure("COMPLETED"), term.Figure("FAILED"), term.Figure("RECORDS"), term.Whole("PAUSED UNTIL"),
				}}
				for _, h := range list.Hosts {
					t.Add(h.Endpoint, string(h.State), term.Count(h.TotalRepos), term.Count(h.CompletedRepos), term.Count(h.FailedRepos), term.Count(h.TotalRecords),
						term.Text(h.PausedUntil, term.Unknown))
				}
				return t.Print(w)
			})
		},
	}
}
