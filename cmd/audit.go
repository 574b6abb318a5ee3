package cmd

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"appview/internal/api"
)

// whoDid names an actor.
func whoDid(a api.Actor) string {
	if a.Name == nil {
		return string(a.Kind)
	}
	return *a.Name + " (" + text(a.Prefix, "") + "…)"
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
				t := table{columns: []column{{"TIME", whole}, {"WHO", prose}, {"ACTION", whole}, {"OUTCOME", whole}, {"ON", prose}, {"DETAIL", prose}}}
				for _, e := range page.Events {
					t.add(e.At, whoDid(e.Actor), string(e.Action), string(e.Outcome), text(e.Target, unknown), text(e.Detail, unknown))
				}
				if err := t.print(w); err != nil || page.Cursor == "" {
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
