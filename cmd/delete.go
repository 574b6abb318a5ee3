package cmd

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
)

func newDeleteCommand(p *program, o *clientOptions) *cobra.Command {
	var collection, did string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Delete the records of a collection, of a repo, or of both",
		Long: `Delete deletes what the index holds now. A job that reads the repos afterwards
brings back what they still hold.`,
		Example: `  appview records delete --collection com.example.note
  appview records delete --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if collection == "" && did == "" {
				return service.Usagef("name what to delete: --collection, --did, or both")
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			if !yes {
				if err := confirm(cmd, fmt.Sprintf("Delete %s from %s?", chosen(collectionName(collection), did), c.at)); err != nil {
					return err
				}
			}
			var deleted api.Deleted
			answer, err := c.patient().call(cmd.Context(), http.MethodDelete, withQuery("/admin/records", "collection", collection, "did", did), nil)
			if err == nil {
				err = decodeAnswer(answer, &deleted)
			}
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "deleted %s records\n", term.Count(deleted.Deleted))
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&collection, "collection", "", "only this collection")
	f.StringVar(&did, "did", "", "only the repo of this DID")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// chosen says what a deletion is about.
func chosen(collection, did string) string {
	switch {
	case did == "":
		return "all records of " + collection
	case collection == "":
		return "all records of " + did
	default:
		return "the records of " + collection + " of " + did
	}
}

// confirm asks whoever is at the terminal.
func confirm(cmd *cobra.Command, question string) error {
	if !term.IsTerminal(cmd.InOrStdin()) {
		return service.Usagef("nobody is there to ask: give --yes to delete without asking")
	}
	if _, err := fmt.Fprint(cmd.ErrOrStderr(), question+" [y/N] "); err != nil {
		return err
	}
	line, err := term.ReadLine(cmd.Context(), cmd.InOrStdin())
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("nothing was done")
	}
}
