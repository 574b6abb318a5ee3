package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
	"appview/internal/record"
)

// valueShown is how much of a record's value a list shows.
const valueShown = 60

func newRecordsCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := group(&cobra.Command{
		Use:   "records",
		Short: "Get, list, export and delete the records of a running server",
	})
	addClientFlags(cmd, &o)
	cmd.AddCommand(newGetCommand(p, &o), newListRecordsCommand(p, &o), newExportCommand(p, &o), newDeleteCommand(p, &o))
	return cmd
}

func newGetCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "get URI",
		Short:   "Print one record, named by its at:// URI",
		Example: `  appview records get at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/xyz.statusphere.status/3kb3fge5lm32x`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := record.ParseURI(args[0])
			if err != nil {
				return service.AsUsage(err)
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			answer, err := c.call(cmd.Context(), http.MethodGet, withQuery("/xrpc/com.atproto.repo.getRecord",
				"repo", uri.DID.String(), "collection", uri.Collection.String(), "rkey", uri.RKey.String()), nil)
			if off, is := errors.AsType[answerError](err); is && off.status == http.StatusNotImplemented {
				return fmt.Errorf("%s was started with --no-public-reads, and this is one: appview records list --did %s has the record too", c.at, uri.DID)
			}
			if err != nil {
				return err
			}
			return term.PrintJSON(cmd.OutOrStdout(), answer)
		},
	}
}

func newListRecordsCommand(p *program, o *clientOptions) *cobra.Command {
	var collection, did, order, cursor string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List a page of the records of a collection, or of a repo",
		Long:  "List a page of the records of a collection, newest indexed first, or of a repo.",
		Example: `  appview records list --collection xyz.statusphere.status
  appview records list --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if collection == "" && did == "" {
				return service.Usagef("name what to list: --collection, --did, or both")
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			var page api.Records
			answer, err := c.get(cmd.Context(), withQuery("/admin/records", "collection", collection, "did", did,
				"order", order, "cursor", cursor, "limit", strconv.Itoa(limit)), &page)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Empty: "no such records: appview backfill list shows what was read", Columns: []term.Column{term.Whole("URI"), term.Whole("INDEXED"), term.Prose("VALUE")}}
				for _, r := range page.Records {
					t.Add(r.URI, r.IndexedAt, term.Cut(term.Plain(string(r.Value)), valueShown))
				}
				if err := t.Print(w); err != nil || page.Cursor == "" {
					return err
				}
				_, err := fmt.Fprintf(w, "\nthere are more: --cursor %s\n", page.Cursor)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&collection, "collection", "", "only this collection")
	f.StringVar(&did, "did", "", "only the repo of this DID: by collection, then newest record key first")
	f.StringVar(&order, "order", "", "indexed (the default: newest indexed first) or rkey (newest record key first)")
	f.StringVar(&cursor, "cursor", "", "go on where another page ended")
	f.IntVar(&limit, "limit", 20, "at most so many")
	return cmd
}

func newExportCommand(p *program, o *clientOptions) *cobra.Command {
	var collection, did, output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all records as lines of JSON, as they are at one moment",
		Example: `  appview records export --collection xyz.statusphere.status --output statuses.ndjson
  appview records export | gzip > everything.ndjson.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			d := download{path: withQuery("/admin/records/export", "collection", collection, "did", did), name: "export", unit: "records"}
			if output == "" {
				return printDownload(cmd, c, d)
			}
			return saveDownload(cmd, c, d, output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&collection, "collection", "", "only this collection")
	f.StringVar(&did, "did", "", "only the repo of this DID")
	f.StringVarP(&output, "output", "o", "", "file to write; it appears when it is complete")
	return cmd
}

// exported reads an export into a map from URI to CID.
func (c *client) exported(ctx context.Context, path string) (map[string]string, error) {
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	all, dec := map[string]string{}, json.NewDecoder(res.Body)
	for {
		var r api.Record
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read export: %w", err)
		}
		all[r.URI] = r.CID
	}
}
