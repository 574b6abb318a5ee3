package cmd

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/store"
)

func newCompactCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Give back what is free in the database of a stopped server",
		Long: `Compact copies the database without what is free in it, proves that the copy holds
the same, and puts it in the database's place. Until then the database is as it
was, whatever happens. The disk must have room for both. The server must not be
running. What the server deletes, it uses again: compact only when much was deleted
for good.`,
		Example: `  appview compact --data-dir /var/lib/appview`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := filepath.Join(dataDir, service.DatabaseFile)
			dir, err := service.OpenDataDir(dataDir)
			if err != nil {
				return err
			}
			before, after, err := store.Compact(cmd.Context(), store.Config{Path: path, Dir: dir})
			err = errors.Join(err, dir.Close())
			if err != nil {
				return service.ExplainOpen(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s had %s and has %s: %s given back\n", path, term.Size(before), term.Size(after), term.Size(max(before-after, 0)))
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of the database")
	configurable(cmd, "data-dir")
	return cmd
}
