package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"appview/store"
)

func newCheckCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove that the database of a stopped server is consistent",
		Long: `Check reads the whole database and compares every index row with the row it
points to. It changes nothing. The server must not be running.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			path := filepath.Join(dataDir, databaseFile)
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("check: there is no database: %w", err)
			}
			st, err := store.Open(store.Config{Path: path, ReadOnly: true})
			if err != nil {
				return explainOpen(err)
			}
			defer func() { err = errors.Join(err, st.Close()) }()
			if err := st.Check(cmd.Context()); err != nil {
				return fmt.Errorf("check %s: %w", path, err)
			}
			stats, err := st.Stats(cmd.Context())
			if err != nil {
				return err
			}
			var records int64
			for _, n := range stats.Collections {
				records += n.Records
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is consistent: %s served records in %d collections, %s\n",
				path, number(&records), len(stats.Collections), size(stats.FileBytes))
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of the database")
	configurable(cmd, "data-dir")
	return cmd
}
