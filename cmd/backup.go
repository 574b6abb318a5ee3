package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/datadir"
	"appview/store"
)

func newBackupCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a copy of the database of a running server, and prove it",
		Long: `Backup writes the database as it is at one moment, while the server and its jobs go
on. FILE appears, or is replaced, when the copy is complete and has been checked.

To restore it, stop the server, copy FILE over appview.db in the data directory,
and start the server. The database of a server that is stopped needs no such
command: copy appview.db.`,
		Example: `  appview backup /var/backups/appview.db`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.newClient(o)
			if err != nil {
				return err
			}
			path := args[0]
			if err := unused(path); err != nil {
				return err
			}
			var held string
			err = replaceFile(path, func(f *os.File) error {
				if err := c.backup(cmd.Context(), f); err != nil {
					return err
				}
				held, err = checkDatabase(cmd.Context(), store.Config{Path: f.Name()})
				return err
			})
			if err != nil {
				return fmt.Errorf("backup to %s: %w", path, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s, which is consistent: %s\n", path, held)
			return err
		},
	}
	addClientFlags(cmd, &o)
	return cmd
}

// unused refuses to replace the database of a server that runs: it would go on
// writing to the file that is gone.
func unused(path string) error {
	st, err := store.Open(store.Config{Path: path, ReadOnly: true})
	switch {
	case err == nil:
		return st.Close()
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("%s is the database of a server that runs: name another file", path)
	default:
		return nil // there is nothing, or something else
	}
}

// backup copies the server's database to w. What breaks off is an error.
func (c *client) backup(ctx context.Context, w io.Writer) error {
	res, err := c.send(ctx, http.MethodGet, "/admin/backup", nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end, or is given up
	if res.ContentLength < 0 {
		return fmt.Errorf("%s sends no backup: is it appview?", c.at)
	}
	if n, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("the backup broke off after %s of %s: %w", term.Size(n), term.Size(res.ContentLength), err)
	}
	return nil
}

// replaceFile writes a file, readable by the owner alone, that appears only when it
// is complete. fill must not close it.
func replaceFile(path string, fill func(*os.File) error) (err error) {
	// A device would be gone, and a file in its place, also where a link leads to it.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is there, and is no file that could be replaced: name another", path)
	}
	dir, err := datadir.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Replace(filepath.Base(path), fill)
}
