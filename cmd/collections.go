package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
)

func newCollectionsCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := group(&cobra.Command{
		Use:   "collections",
		Short: "List, add and remove the collections that a running server tracks",
	})
	addClientFlags(cmd, &o)
	cmd.AddCommand(newListCollectionsCommand(p, &o), newAddCollectionCommand(p, &o), newRemoveCollectionCommand(p, &o))
	return cmd
}

func newListCollectionsCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the tracked collections: what is held, and how old it is",
		Long:    "List the tracked collections: what is held, how old that is, and when it is read again.",
		Example: `  appview collections list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			var list api.Collections
			answer, err := c.get(cmd.Context(), "/admin/collections", &list)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Empty: "no collection is tracked: add one with appview collections add", Columns: []term.Column{
					term.Whole("COLLECTION"), term.Figure("RECORDS"), term.Figure("REPOS"), term.Figure("AGE"), term.Whole("READ AGAIN AT"), term.ID("LAST JOB"), term.Whole("STATUS"),
				}}
				for _, c := range list.Collections {
					last, status := term.Unknown, term.Unknown
					if c.LastJob != nil {
						last, status = c.LastJob.ID.String(), string(c.LastJob.Status)
					}
					t.Add(c.Collection.String(), term.Count(c.Records), term.Count(c.Repos), term.Age(c.AgeSeconds), term.Text(c.RefreshAt, term.Unknown), last, status)
				}
				return t.Print(w)
			})
		},
	}
}

func newAddCollectionCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "add COLLECTION",
		Short:   "Track a collection, and start to read it from the whole network",
		Example: `  appview collections add xyz.statusphere.status`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			name := collectionName(args[0])
			body, err := json.Marshal(map[string]string{"collection": name})
			if err != nil {
				return fmt.Errorf("add %s: %w", name, err)
			}
			answer, err := c.create(cmd.Context(), "/admin/collections", body)
			if err != nil {
				return err
			}
			var added api.Added
			if err := decodeAnswer(answer, &added); err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				if added.Job == nil {
					_, err := fmt.Fprintf(w, "%s is tracked already\n", name)
					return err
				}
				_, err := fmt.Fprintf(w, "%s is tracked, and being read by job %s\nwatch it with: %s\n", name, added.Job.ID, c.again(added.Job.ID.String()))
				return err
			})
		},
	}
}

func newRemoveCollectionCommand(p *program, o *clientOptions) *cobra.Command {
	var records string
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove COLLECTION --records keep|delete",
		Short: "Track a collection no more, and keep or delete its records",
		Long: `Remove ceases to track a collection: it is not read again by itself, and not by jobs
that name no collection. With --records keep its records are served on as they are,
with --records delete they are deleted. While an unfinished job reads the collection
it cannot be removed. A server that is started with --collection tracks it again.`,
		Example: `  appview collections remove com.example.note --records keep
  appview collections remove com.example.note --records delete --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch records {
			case api.KeepRecords, api.DeleteRecords:
			case "":
				return service.Usagef("say with --records what becomes of its records: keep or delete")
			default:
				return service.Usagef("--records is %q, it must be keep or delete", records)
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			name := collectionName(args[0])
			if records == api.DeleteRecords && !yes {
				if err := confirm(cmd, fmt.Sprintf("Remove %s and delete all its records from %s?", name, c.at)); err != nil {
					return err
				}
			}
			answer, err := c.patient().call(cmd.Context(), http.MethodDelete, withQuery("/admin/collections", "collection", name, "records", records), nil)
			if err != nil {
				return err
			}
			var removed api.Removed
			if err := decodeAnswer(answer, &removed); err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				what := "its records are kept"
				if records == api.DeleteRecords {
					what = term.Count(removed.Deleted) + " records were deleted"
				}
				_, err := fmt.Fprintf(w, "%s is tracked no more; %s\n", name, what)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&records, "records", "", "what becomes of its records: keep or delete")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before records are deleted")
	return cmd
}

// collectionName brings the name of a collection to the form in which the server shows it.
// What is no name is left for the server to refuse.
func collectionName(text string) string {
	if c, err := syntax.ParseNSID(text); err == nil {
		return c.Normalize().String()
	}
	return text
}
