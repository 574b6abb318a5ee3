package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

func newBackfillCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := group(&cobra.Command{
		Use:   "backfill",
		Short: "Plan, start, watch and steer the jobs of a running server",
		Long:  "Plan, start, watch and steer backfill jobs of a running server, and see what they came to.",
	})
	addClientFlags(cmd, &o)
	cmd.AddCommand(
		newPlanCommand(p, &o), newCreateCommand(p, &o), newListJobsCommand(p, &o), newShowCommand(p, &o), newWatchCommand(p, &o),
		newOrderCommand(p, &o, order{"cancel", "Ask a running or paused job to stop", "stops: what it has read stays"}),
		newOrderCommand(p, &o, order{"pause", "Ask a running job to pause, over restarts too", "pauses: what it has read stays"}),
		newOrderCommand(p, &o, order{"resume", "Let a paused job go on where it was", "goes on"}),
		newRetryCommand(p, &o), newJobReposCommand(p, &o), newJobHostsCommand(p, &o), newReportCommand(p, &o),
	)
	return cmd
}

func newCreateCommand(p *program, o *clientOptions) *cobra.Command {
	var collection string
	var repos repoNames
	var watch bool
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a job and start it",
		Long: `Create starts a job that reads every repo of the network, or those that --did and
--dids-file name, and keeps the records of the collection that --collection names.
Without --collection these are the tracked collections, or all if none is tracked.
Handles are looked up by this command: the job knows the DIDs.`,
		Example: `  appview backfill create --collection xyz.statusphere.status --watch
  appview backfill create --did alice.example.com --did did:plc:ewvi7nxzyoun6zhxrhs64oiz
  appview backfill create --dids-file repos.txt --collection xyz.statusphere.status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			dids, err := repos.dids(cmd, p)
			if err != nil {
				return err
			}
			var request api.JobRequest
			// An empty value is sent as it is: the server refuses it, where leaving
			// it out would mean everything.
			if cmd.Flags().Changed("collection") {
				request.Collection = &collection
			}
			switch len(dids) {
			case 0:
			case 1:
				request.DID = &dids[0] // which lists show
			default:
				request.DIDs = dids
			}
			body, err := json.Marshal(request)
			if err != nil {
				return fmt.Errorf("create job: %w", err)
			}
			answer, err := c.create(cmd.Context(), "/admin/backfill", body)
			if err != nil {
				return err
			}
			return p.showCreated(cmd, c, o, answer, watch)
		},
	}
	cmd.Flags().StringVar(&collection, "collection", "", "only this collection")
	repos.addFlags(cmd)
	addWatchFlag(cmd, &watch)
	return cmd
}

func newRetryCommand(p *program, o *clientOptions) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "retry ID",
		Short:   "Create a job that carries on one that has ended",
		Long:    "Create a job that carries on a job that has ended: what it gave up, and what it did not get to.",
		Example: `  appview backfill retry 6c0e8a3e --watch`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			answer, err := c.create(cmd.Context(), jobPath(id, "retry"), nil)
			if err != nil {
				return err
			}
			return p.showCreated(cmd, c, o, answer, watch)
		},
	}
	addWatchFlag(cmd, &watch)
	return cmd
}

func addWatchFlag(cmd *cobra.Command, watch *bool) {
	cmd.Flags().BoolVar(watch, "watch", false, "show how it goes on until it ends; exit 1 if it fails or is cancelled")
}

// showCreated shows the job that was created, to its end if that was asked for.
func (p *program) showCreated(cmd *cobra.Command, c *client, o *clientOptions, answer json.RawMessage, watch bool) error {
	var made api.JobRef
	if err := decodeAnswer(answer, &made); err != nil {
		return err
	}
	if watch {
		return p.watchJob(cmd, c, o, made.ID.String())
	}
	return o.print(cmd, answer, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "created job %s\nwatch it with: %s\n", made.ID, c.again(made.ID.String()))
		return err
	})
}

func newListJobsCommand(p *program, o *clientOptions) *cobra.Command {
	var status string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs, newest first",
		Example: `  appview backfill list --limit 10
  appview backfill list --status running`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			most := ""
			if cmd.Flags().Changed("limit") {
				most = strconv.Itoa(limit)
			}
			var jobs []term.Job
			answer, err := c.get(cmd.Context(), withQuery("/admin/backfill/status", "status", status, "limit", most), &jobs)
			if err != nil {
				return err
			}
			empty := noJobs
			if status != "" {
				empty = "no job is " + status
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printJobs(w, jobs, empty) })
		},
	}
	cmd.Flags().StringVar(&status, "status", "", "only jobs of this status")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many")
	return cmd
}

// noJobs is what is said where there is no job.
const noJobs = "no jobs: create one with appview backfill create"

func printJobs(w io.Writer, jobs []term.Job, empty string) error {
	t := term.Table{Empty: empty, Columns: []term.Column{
		term.ID("ID"), term.Whole("STATUS"), term.Figure("REPOS"), term.Figure("RECORDS"), term.Whole("CREATED"), term.Prose("COVERS"),
	}}
	for _, j := range jobs {
		t.Add(j.ID.String(), j.Phase(), term.Number(j.ProcessedRepos)+"/"+term.Number(j.TotalRepos), term.Number(j.TotalRecords), j.CreatedAt, j.Covers())
	}
	return t.Print(w)
}

func newShowCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "show [ID]",
		Short: "Show one job, or without an ID the one that was created last",
		Example: `  appview backfill show
  appview backfill show 6c0e8a3e --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			var j term.Job
			answer, err := c.get(cmd.Context(), jobPath(id), &j)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printJob(w, j) })
		},
	}
}

func printJob(w io.Writer, j term.Job) error {
	fields := []term.Field{
		{"job", j.ID.String()},
		{"covers", j.Covers()},
		{"made by", j.MadeBy()},
		{"status", string(j.Status)},
		{"stage", string(j.Stage)},
		{"error", term.Text(j.Error, term.Unknown)},
		{"repos", fmt.Sprintf("%s of %s: %s empty, %s unavailable, %s failed",
			term.Number(j.ProcessedRepos), term.Number(j.TotalRepos), term.Count(j.EmptyRepos), term.Count(j.UnavailableRepos), term.Count(j.FailedRepos))},
		{"records", fmt.Sprintf("%s: %s created, %s updated, %s unchanged; %s deleted, %s rejected",
			term.Number(j.TotalRecords), term.Count(j.CreatedRecords), term.Count(j.UpdatedRecords), term.Count(j.UnchangedRecords), term.Count(j.DeletedRecords), term.Count(j.RejectedRecords))},
	}
	if lost := j.Losses(); lost != "" {
		fields = append(fields, term.Field{"not read", lost})
	}
	if j.RetryOf != nil {
		fields = slices.Insert(fields, 3, term.Field{"retry of", *j.RetryOf})
	}
	if pace := j.Pace()[1:]; len(pace) > 0 {
		fields = append(fields, term.Field{"pace", strings.Join(pace, ", ")})
	}
	return term.PrintFields(w, append(fields,
		term.Field{"created", j.CreatedAt}, term.Field{"started", term.Text(j.StartedAt, term.Unknown)}, term.Field{"completed", term.Text(j.CompletedAt, term.Unknown)}))
}

// order is a command that asks a job for something.
type order struct {
	name, short string
	said        string // what comes of it
}

func newOrderCommand(p *program, o *clientOptions, ask order) *cobra.Command {
	return &cobra.Command{
		Use:     ask.name + " ID",
		Short:   ask.short,
		Example: "  appview backfill " + ask.name + " 6c0e8a3e",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			answer, err := c.call(cmd.Context(), http.MethodPost, jobPath(id, ask.name), nil)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "job %s %s\n", id, ask.said)
				return err
			})
		},
	}
}

// print prints an answer as JSON if that was asked for, else as readable text.
func (o *clientOptions) print(cmd *cobra.Command, answer json.RawMessage, readable func(io.Writer) error) error {
	if o.json {
		return term.PrintJSON(cmd.OutOrStdout(), answer)
	}
	return readable(cmd.OutOrStdout())
}
