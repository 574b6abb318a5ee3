package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

// deniedThing says what an entry stands for.
func deniedThing(entry string) string {
	if strings.HasPrefix(entry, "did:") {
		return "account " + entry
	}
	return "host " + entry
}

func newDenylistCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := group(&cobra.Command{
		Use:   "denylist",
		Short: "Accounts and hosts that a running server never reads or serves",
		Long:  "List, add and remove accounts and hosts that a running server never reads, stores or serves.",
	})
	addClientFlags(cmd, &o)
	cmd.AddCommand(newListDenialsCommand(p, &o), newDenyCommand(p, &o), newAllowCommand(p, &o))
	return cmd
}

func newListDenialsCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List what is denied",
		Example: `  appview denylist list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			var list api.Denials
			answer, err := c.get(cmd.Context(), "/admin/denylist", &list)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Empty: "nothing is denied", Columns: []term.Column{term.Whole("ENTRY"), term.Whole("ADDED"), term.Prose("REASON")}}
				for _, d := range list.Entries {
					t.Add(d.Entry, d.AddedAt, term.Text(d.Reason, term.Unknown))
				}
				return t.Print(w)
			})
		},
	}
}

func newDenyCommand(p *program, o *clientOptions) *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "add DID|HOST",
		Short: "Deny an account or a host, and delete what is held of it",
		Long: `Add hides what the index holds of the account, or of all accounts on the host, at
once, deletes it, and keeps jobs from reading it again. A host is denied under the
name given, not under the names below it.`,
		Example: `  appview denylist add did:plc:ewvi7nxzyoun6zhxrhs64oiz --reason "asked to be removed"
  appview denylist add pds.example.com --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			if !yes {
				question := fmt.Sprintf("Deny %s, and delete what is held of it from %s?", deniedThing(args[0]), c.at)
				if err := confirm(cmd, question); err != nil {
					return err
				}
			}
			body, err := json.Marshal(api.DenialRequest{Entry: args[0], Reason: reason})
			if err != nil {
				return fmt.Errorf("deny %s: %w", args[0], err)
			}
			answer, err := c.patient().call(cmd.Context(), http.MethodPost, "/admin/denylist", bytes.NewReader(body))
			if err != nil {
				return err
			}
			var d api.Denial
			if err := decodeAnswer(answer, &d); err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "denied %s: what was held of it is deleted\n", deniedThing(d.Entry))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever reads the list")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func newAllowCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "remove DID|HOST",
		Short:   "Deny an account or a host no more",
		Long:    "Deny an account or a host no more; the next job that covers it reads it again.",
		Example: `  appview denylist remove pds.example.com`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			answer, err := c.call(cmd.Context(), http.MethodDelete, withQuery("/admin/denylist", "entry", args[0]), nil)
			if err != nil {
				return err
			}
			var d api.Allowed
			if err := decodeAnswer(answer, &d); err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is denied no more: a job brings it back\n", deniedThing(d.Entry))
				return err
			})
		},
	}
}
