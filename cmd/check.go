package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
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
			path := filepath.Join(dataDir, service.DatabaseFile)
			if len(args) == 1 {
				path = args[0]
			}
			held, err := checkFile(cmd.Context(), path, len(args) == 1)
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

// checkFile proves the database of a data directory, or a copy that the user names: the
// path to that may end in a link, as the one to the latest backup often does.
func checkFile(ctx context.Context, path string, isCopy bool) (held string, err error) {
	if isCopy {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		return checkDatabase(ctx, store.Config{Path: path})
	}
	dir, err := service.OpenDataDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return checkDatabase(ctx, store.Config{Path: path, Dir: dir})
}

// checkDatabase proves a database file and tells what it holds.
func checkDatabase(ctx context.Context, cfg store.Config) (held string, err error) {
	cfg.ReadOnly = true
	st, err := store.Open(cfg)
	if err != nil {
		return "", service.ExplainOpen(fmt.Errorf("check: %w", err))
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Check(ctx); err != nil {
		return "", fmt.Errorf("check %s: %w", cfg.Path, err)
	}
	stats, err := st.Stats(ctx)
	if err != nil {
		return "", err
	}
	var records int64
	for _, n := range stats.Collections {
		records += n.Records
	}
	return fmt.Sprintf("%s served records in %s, %s", term.Count(records), term.Many(len(stats.Collections), "collection"), term.Size(stats.FileBytes)), nil
}
