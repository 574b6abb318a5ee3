package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"appview/record"
)

// recordView is a record as the server lists it.
type recordView struct {
	URI       string `json:"uri"`
	CID       string `json:"cid"`
	IndexedAt string `json:"indexed_at"`
}

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
		Use:   "get URI",
		Short: "Print one record, named by its at:// URI",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := record.ParseURI(args[0])
			if err != nil {
				return usageError{err}
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			answer, err := c.call(cmd.Context(), http.MethodGet, withQuery("/xrpc/com.atproto.repo.getRecord",
				"repo", uri.DID.String(), "collection", uri.Collection.String(), "rkey", uri.RKey.String()), nil)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), answer)
		},
	}
}

func newListRecordsCommand(p *program, o *clientOptions) *cobra.Command {
	var collection, did, order, cursor string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List a page of the records of a collection, newest indexed first, or of a repo",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			var page struct {
				Records []recordView `json:"records"`
				Cursor  string       `json:"cursor"`
			}
			answer, err := c.get(cmd.Context(), withQuery("/admin/records", "collection", collection, "did", did,
				"order", order, "cursor", cursor, "limit", strconv.Itoa(limit)), &page)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				rows := [][]string{{"URI", "CID", "INDEXED"}}
				for _, r := range page.Records {
					rows = append(rows, []string{r.URI, r.CID, r.IndexedAt})
				}
				if err := printTable(w, rows); err != nil || page.Cursor == "" {
					return err
				}
				_, err := fmt.Fprintf(w, "there are more: --cursor %s\n", page.Cursor)
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			path := withQuery("/admin/records/export", "collection", collection, "did", did)
			if output == "" {
				out := bufio.NewWriter(cmd.OutOrStdout())
				if _, err := c.export(cmd.Context(), path, out); err != nil {
					return errors.Join(err, out.Flush())
				}
				return out.Flush()
			}
			n, err := exportFile(cmd.Context(), c, path, output)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s records to %s\n", number(&n), output)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&collection, "collection", "", "only this collection")
	f.StringVar(&did, "did", "", "only the repo of this DID")
	f.StringVarP(&output, "output", "o", "", "file to write; it appears when it is complete")
	return cmd
}

// export copies an export to w and returns how many records it had. What breaks
// off is an error: a part must not be taken for the whole.
func (c *client) export(ctx context.Context, path string, w io.Writer) (n int64, err error) {
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	lines := lineCounter{w: w}
	if _, err := io.Copy(&lines, res.Body); err != nil {
		return lines.n, fmt.Errorf("the export broke off after %d records: %w", lines.n, err)
	}
	return lines.n, nil
}

// lineCounter counts the lines that pass.
type lineCounter struct {
	w io.Writer
	n int64
}

func (l *lineCounter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	for _, b := range p[:n] {
		if b == '\n' {
			l.n++
		}
	}
	return n, err
}

// exportFile writes an export to a file that appears only when it is complete.
func exportFile(ctx context.Context, c *client, path, output string) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(output), filepath.Base(output)+".part-*")
	if err != nil {
		return 0, fmt.Errorf("export to %s: %w", output, err)
	}
	n, err = c.export(ctx, path, f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return n, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), output); err != nil {
		return n, fmt.Errorf("export to %s: %w", output, err)
	}
	return n, nil
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
		var r recordView
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read export: %w", err)
		}
		all[r.URI] = r.CID
	}
}
