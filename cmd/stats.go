package cmd

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

func newStatsCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show what the index of a running server holds",
		Example: `  appview stats
  appview stats --url https://appview.example.com --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(o)
			if err != nil {
				return err
			}
			var st api.Stats
			answer, err := c.get(cmd.Context(), "/admin/stats", &st)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error { return printStats(w, st) })
		},
	}
	addClientFlags(cmd, &o)
	return cmd
}

func printStats(w io.Writer, st api.Stats) error {
	t := term.Table{Empty: "no records: appview backfill list shows what is being read", Columns: []term.Column{term.Whole("COLLECTION"), term.Figure("RECORDS"), term.Figure("REPOS"), term.Figure("AGE")}}
	for _, name := range slices.Sorted(maps.Keys(st.Collections)) {
		n := st.Collections[name]
		t.Add(name.String(), term.Count(n.Records), term.Count(n.Repos), term.Age(n.AgeSeconds))
	}
	if err := t.Print(w); err != nil {
		return err
	}
	tracked := "none, so jobs cover every collection"
	if len(st.Tracked) > 0 {
		tracked = term.Join(st.Tracked)
	}
	full := ""
	if st.DiskFull {
		full = ": THE DISK IS FULL, jobs wait"
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return term.PrintFields(w, []term.Field{
		{"tracked", tracked},
		{"repos", term.Count(st.Repos) + " known"},
		{"changes", term.Count(st.Seq)},
		{"database", fmt.Sprintf("%s, %s of it free%s", term.Size(st.Database.FileBytes), term.Size(st.Database.FreeBytes), full)},
		{"version", st.Version},
	})
}
