package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"appview/server"
	"appview/store"
)

// Files of a data directory.
const (
	databaseFile = "appview.db"
	keyFile      = "admin.key"
	urlFile      = "server.url" // of the running server, for commands on the same machine
)

// openDataDir makes the data directory if it is not there.
func openDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w: name one that can be written with --data-dir", err)
	}
	return nil
}

// findDatabase refuses a data directory that has no database.
func findDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no database %s: say with --data-dir where it is", path)
	}
	return nil
}

// bootstrapKey makes sure that some key opens the admin API: one that the store
// holds, else the one in the data directory's key file. That is made if it is not
// there, or holds a key that was revoked or has expired: a start must not bring that
// back. It returns the file's path if the store has got the file's key now.
//
// The file is written before the store: a crash between the two leaves a key
// that the next start adopts.
func bootstrapKey(ctx context.Context, st *store.Store, dir string, now time.Time) (path string, err error) {
	keys, err := st.APIKeys(ctx)
	if err != nil {
		return "", fmt.Errorf("look for an admin key: %w", err)
	}
	if slices.ContainsFunc(keys, func(k store.APIKey) bool { return k.Usable(now) && k.Admin() }) {
		return "", nil
	}
	path = filepath.Join(dir, keyFile)
	key, err := readKey(path)
	if err == nil {
		if _, known := st.APIKey(ctx, key); !errors.Is(known, store.ErrNotFound) {
			key, err = makeKey(path) // what it holds opens too little, or nothing any more
		}
	} else if errors.Is(err, os.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return "", err
	}
	return path, putAdminKey(store.WithActor(ctx, store.Actor{Kind: store.ActorStart}), st, "admin", key, now)
}

// putAdminKey stores a key that has every permission.
func putAdminKey(ctx context.Context, st *store.Store, name, key string, now time.Time) error {
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make admin key: %w", err)
	}
	return st.PutAPIKey(ctx, key, store.APIKey{
		ID: id, Name: name, Prefix: server.Prefix(key), Permissions: []string{store.AllPermissions}, CreatedAt: now.UTC().Truncate(time.Second),
	})
}

// readKey reads a key file.
func readKey(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read admin key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if err := server.CheckKey(key); err != nil {
		return "", fmt.Errorf("%s holds no key: %w: remove the file to have a new key made", path, err)
	}
	return key, nil
}

// makeKey makes a key and writes it where only the owner can read it.
func makeKey(path string) (string, error) {
	key := server.NewKey()
	if err := writeFile(path, key+"\n"); err != nil {
		return "", fmt.Errorf("write admin key: %w", err)
	}
	return key, nil
}

// writeFile replaces a small file as a whole, readable by the owner alone.
func writeFile(path, text string) error {
	return replaceFile(path, func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	})
}
