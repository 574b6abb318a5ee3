package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"appview/store"
)

func newCheckCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Prove that a stopped server's database, or a backup, is sound",
		Long: `Check reads the whole database and compares every index row with the row it
points to. It changes nothing. Without FILE, a backup or any other copy, it checks
the database in the data directory, whose server must not be running.`,
		Example: `  appview check --data-dir /var/lib/appview
  appview check backup.db`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := filepath.Join(dataDir, databaseFile)
			if len(args) == 1 {
				path = args[0]
			} else if err := findDatabase(path); err != nil {
				return err
			}
			held, err := checkDatabase(cmd.Context(), path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is consistent: %s\n", path, held)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of the database")
	configurable(cmd, "data-dir")
	return cmd
}

// checkDatabase proves a database file and tells what it holds.
func checkDatabase(ctx context.Context, path string) (held string, err error) {
	st, err := store.Open(store.Config{Path: path, ReadOnly: true})
	if err != nil {
		return "", explainOpen(fmt.Errorf("check: %w", err))
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Check(ctx); err != nil {
		return "", fmt.Errorf("check %s: %w", path, err)
	}
	stats, err := st.Stats(ctx)
	if err != nil {
		return "", err
	}
	var records int64
	for _, n := range stats.Collections {
		records += n.Records
	}
	return fmt.Sprintf("%s served records in %s, %s", number(&records), many(len(stats.Collections), "collection"), size(stats.FileBytes)), nil
}
