package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/internal/api"
	"appview/internal/datadir"
	"appview/server/apikey"
	"appview/store"
	"appview/store/admin"
)

// rescued is what a rescue has done.
type rescued struct {
	Key     string `json:"key"`
	File    string `json:"file"`
	Revoked int    `json:"revoked"`
}

func newRescueCommand(o *clientOptions) *cobra.Command {
	var revoke bool
	cmd := &cobra.Command{
		Use:   "rescue",
		Short: "Make a new admin key for a stopped server whose admin key is lost",
		Long: `Rescue opens the database of a stopped server, makes a key that has every permission,
writes it to admin.key in the data directory, where the commands on this machine find
it, and prints it. It needs no key, but access to the files. Other keys stay good
unless --revoke-others takes them away, as is wise if the lost key may have been found.`,
		Example: `  appview keys rescue --data-dir /var/lib/appview`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := rescue(cmd.Context(), o.dataDir, revoke)
			if err != nil {
				return err
			}
			answer, err := json.Marshal(done)
			if err != nil {
				return fmt.Errorf("rescue: %w", err)
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "new admin key in %s; other keys revoked: %d. Start the server. The key is:\n", done.File, done.Revoked); err != nil {
					return err
				}
				_, err := fmt.Fprintln(w, done.Key)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&revoke, "revoke-others", false, "revoke all other keys that have every permission, or may manage keys")
	return cmd
}

// rescue makes a new admin key. The store has it before the file: a crash between
// the two leaves the file as it was.
func rescue(ctx context.Context, dataDir string, revoke bool) (done rescued, err error) {
	dir, err := service.OpenDataDir(dataDir)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	st, err := store.Open(store.Config{Path: filepath.Join(dataDir, service.DatabaseFile), Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return done, service.ExplainOpen(err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	ctx = admin.WithActor(ctx, admin.Actor{Kind: api.ActorDataDir})
	now := time.Now()
	if revoke {
		keys, err := st.Admin.APIKeys(ctx)
		if err != nil {
			return done, fmt.Errorf("rescue: %w", err)
		}
		for _, k := range keys {
			if !k.Usable(now) || !k.Admin() && !slices.Contains(k.Permissions, string(api.KeysManage)) {
				continue
			}
			if err := st.Admin.RevokeAPIKey(ctx, k.ID, true); err != nil {
				return done, fmt.Errorf("rescue: %w", err)
			}
			done.Revoked++
		}
	}
	done.Key, done.File = apikey.New(), filepath.Join(dataDir, service.KeyFile)
	if err := service.PutAdminKey(ctx, st, "rescue", done.Key, now); err != nil {
		return done, fmt.Errorf("rescue: %w", err)
	}
	err = dir.Replace(service.KeyFile, func(f *os.File) error {
		if _, err := f.WriteString(done.Key + "\n"); err != nil || os.Geteuid() != 0 {
			return err
		}
		// The user that runs the server must be able to read what root has written.
		database, err := dir.Lstat(service.DatabaseFile)
		if err != nil {
			return err
		}
		return datadir.GiveTo(f, database)
	})
	if err != nil {
		return done, fmt.Errorf("rescue: write admin key: %w", err)
	}
	return done, nil
}
