package cmd

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// statsView is what a server says that it holds.
type statsView struct {
	Collections map[string]struct {
		Records, Repos int64
		AgeSeconds     *int64 `json:"age_seconds"`
	}
	Repos    int64
	Seq      int64
	Database struct {
		FileBytes int64 `json:"file_bytes"`
		FreeBytes int64 `json:"free_bytes"`
	}
	Tracked  []string `json:"tracked_collections"`
	DiskFull bool     `json:"disk_full"`
	Version  string
}

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
			var st statsView
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

func printStats(w io.Writer, st statsView) error {
	t := table{empty: "no records: appview backfill list shows what is being read", columns: []column{{"COLLECTION", whole}, {"RECORDS", figure}, {"REPOS", figure}, {"AGE", figure}}}
	for _, name := range slices.Sorted(maps.Keys(st.Collections)) {
		n := st.Collections[name]
		t.add(name, number(&n.Records), number(&n.Repos), age(n.AgeSeconds))
	}
	if err := t.print(w); err != nil {
		return err
	}
	tracked := "none, so jobs cover every collection"
	if len(st.Tracked) > 0 {
		tracked = strings.Join(st.Tracked, ", ")
	}
	full := ""
	if st.DiskFull {
		full = ": THE DISK IS FULL, jobs wait"
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return printFields(w, []field{
		{"tracked", tracked},
		{"repos", number(&st.Repos) + " known"},
		{"changes", number(&st.Seq)},
		{"database", fmt.Sprintf("%s, %s of it free%s", size(st.Database.FileBytes), size(st.Database.FreeBytes), full)},
		{"version", st.Version},
	})
}
