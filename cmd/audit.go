package cmd

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

// whoDid names an actor.
func whoDid(a api.Actor) string {
	if a.Name == nil {
		return string(a.Kind)
	}
	return *a.Name + " (" + term.Text(a.Prefix, "") + "…)"
}

func newAuditCommand(p *program) *cobra.Command {
	var o clientOptions
	var cursor string
	var limit int
	cmd := &cobra.Command{
		Use:     "audit",
		Short:   "Show what administrators did on a running server, the latest first",
		Example: `  appview audit --limit 20`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(o)
			if err != nil {
				return err
			}
			var page api.Events
			answer, err := c.get(cmd.Context(), withQuery("/admin/events", "cursor", cursor, "limit", strconv.Itoa(limit)), &page)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Columns: []term.Column{term.Whole("TIME"), term.Prose("WHO"), term.Whole("ACTION"), term.Whole("OUTCOME"), term.Prose("ON"), term.Prose("DETAIL")}}
				for _, e := range page.Events {
					t.Add(e.At, whoDid(e.Actor), string(e.Action), string(e.Outcome), term.Text(e.Target, term.Unknown), term.Text(e.Detail, term.Unknown))
				}
				if err := t.Print(w); err != nil || page.Cursor == "" {
					return err
				}
				_, err := fmt.Fprintf(w, "\nthere are more: --cursor %s\n", page.Cursor)
				return err
			})
		},
	}
	addClientFlags(cmd, &o)
	cmd.Flags().StringVar(&cursor, "cursor", "", "go on where another list ended")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many, up to 1000")
	return cmd
}
