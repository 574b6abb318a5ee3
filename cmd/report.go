package cmd

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

// outcomeKey is what a repo of a job has come to, to count by.
type outcomeKey struct{ class, reason string }

// outcomeCount is how many repos have come to the same.
type outcomeCount struct{ repos, records int64 }

func newReportCommand(p *program, o *clientOptions) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report [ID]",
		Short: "Count the repos of a job by what has become of them",
		Long: `Report counts the repos of a job, or without an ID of the one that was created last,
by class and reason; docs/operating.md says what each means and what to do. With --json it writes a line
of JSON for each repo instead, and with --output it writes these to a file.`,
		Example: `  appview backfill report
  appview backfill report 6c0e8a3e --json | grep '"class":"failed"'
  appview backfill report 6c0e8a3e --output report.ndjson`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			d := download{path: jobPath(id, "report"), name: "report", unit: "repos"}
			switch {
			case output != "":
				return saveDownload(cmd, c, d, output)
			case o.json:
				return printDownload(cmd, c, d)
			}
			counts, err := c.outcomes(cmd.Context(), d)
			if err != nil {
				return err
			}
			return printOutcomes(cmd.OutOrStdout(), counts)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write the lines to; it appears when it is complete")
	return cmd
}

// outcomes reads a report and counts its lines.
func (c *client) outcomes(ctx context.Context, d download) (map[outcomeKey]outcomeCount, error) {
	res, err := c.send(ctx, http.MethodGet, d.path, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	counts, dec, lines := map[outcomeKey]outcomeCount{}, json.NewDecoder(bufio.NewReader(res.Body)), int64(0)
	for {
		var line api.ReportLine
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return counts, nil
		case err != nil:
			return nil, d.brokeOff(lines, err)
		}
		lines++
		key := outcomeKey{line.Class, term.Text(line.Reason, "-")}
		n := counts[key]
		n.repos++
		n.records += line.Records
		counts[key] = n
	}
}

func printOutcomes(w io.Writer, counts map[outcomeKey]outcomeCount) error {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b outcomeKey) int {
		return cmp.Or(cmp.Compare(counts[b].repos, counts[a].repos), cmp.Compare(a.class, b.class), cmp.Compare(a.reason, b.reason))
	})
	t := term.Table{Columns: []term.Column{term.Whole("CLASS"), term.Whole("REASON"), term.Figure("REPOS"), term.Figure("RECORDS")}}
	var all outcomeCount
	for _, k := range keys {
		n := counts[k]
		t.Add(k.class, k.reason, term.Count(n.repos), term.Count(n.records))
		all.repos += n.repos
		all.records += n.records
	}
	if err := t.Print(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s repos, %s records\n", term.Count(all.repos), term.Count(all.records))
	return err
}
