package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/internal/datadir"
	"appview/server/apikey"
	"appview/store"
	"appview/store/admin"
)

// Files of a data directory.
const (
	DatabaseFile = "appview.db"
	KeyFile      = "admin.key"
	URLFile      = "server.url" // of the running server, for people and their scripts; no command reads it
)

// maxKeyFile bounds a file that holds a key.
const maxKeyFile = 4 << 10

// MakeDataDir opens the data directory, and makes it if it is not there.
func MakeDataDir(path string) (*datadir.Dir, error) {
	err := os.MkdirAll(path, 0o700)
	var dir *datadir.Dir
	if err == nil {
		dir, err = datadir.Open(path)
	}
	if err == nil {
		if err = checkEmptied(dir); err == nil {
			return dir, nil
		}
		return nil, errors.Join(err, dir.Close())
	}
	return nil, fmt.Errorf("data directory: %w: name one that can be written with --data-dir", err)
}

// OpenDataDir opens a data directory that has a database.
func OpenDataDir(path string) (*datadir.Dir, error) {
	dir, err := datadir.Open(path)
	if err == nil {
		if _, err = dir.Lstat(DatabaseFile); err == nil {
			err = checkEmptied(dir)
		}
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no database %s: say with --data-dir where it is", filepath.Join(path, DatabaseFile))
	case err != nil:
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return dir, nil
}

// checkEmptied refuses a database of no bytes beside a key: there was one, and it is
// gone. To begin anew there would look like a network without records.
func checkEmptied(dir *datadir.Dir) error {
	database, err := dir.Lstat(DatabaseFile)
	if err != nil || database.Size() > 0 || !database.Mode().IsRegular() {
		return nil //nolint:nilerr // a new beginning, or for the store to refuse
	}
	if _, err := dir.Lstat(KeyFile); err != nil {
		return nil //nolint:nilerr // a new beginning
	}
	return fmt.Errorf("%w: %s has no bytes, but there is an %s beside it, so that it had some: restore a backup, or remove both files to begin anew",
		store.ErrDamaged, filepath.Join(dir.Path(), DatabaseFile), KeyFile)
}

// BootstrapKey makes sure that some key opens the admin API: where the store holds none
// that does, a new one is made and written to the data directory's key file. It returns
// the file's path then. A key that stands in that file already is never adopted: whoever
// may write to the directory could have put it there.
//
// The file is written before the store: a crash between the two leaves a key that opens
// nothing, and that the next start replaces.
func BootstrapKey(ctx context.Context, st *store.Store, dir *datadir.Dir, now time.Time) (path string, err error) {
	keys, err := st.Admin.APIKeys(ctx)
	if err != nil {
		return "", fmt.Errorf("look for an admin key: %w", err)
	}
	if slices.ContainsFunc(keys, func(k admin.APIKey) bool { return k.Usable(now) && k.Admin() }) {
		return "", nil
	}
	key := apikey.New()
	if err := errors.Join(dir.RemoveParts(KeyFile), writeFile(dir, KeyFile, key+"\n")); err != nil {
		return "", fmt.Errorf("write admin key: %w", err)
	}
	return filepath.Join(dir.Path(), KeyFile), PutAdminKey(admin.WithActor(ctx, admin.Actor{Kind: api.ActorStart}), st, "admin", key, now)
}

// PutAdminKey stores a key that has every permission.
func PutAdminKey(ctx context.Context, st *store.Store, name, key string, now time.Time) error {
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make admin key: %w", err)
	}
	return st.Admin.PutAPIKey(ctx, key, admin.APIKey{
		ID: id, Name: name, Prefix: apikey.Prefix(key), Permissions: []string{string(api.AllPermissions)}, CreatedAt: now.UTC().Truncate(time.Second),
	})
}

// ReadKey reads the key file of a data directory. It counts only if it belongs to the
// user of this process, or for root to the owner of the database, and if nobody else may
// write it.
func ReadKey(dir *datadir.Dir) (string, error) {
	path := filepath.Join(dir.Path(), KeyFile)
	data, info, err := dir.ReadFile(KeyFile, maxKeyFile)
	if err != nil {
		return "", fmt.Errorf("read admin key: %w", err)
	}
	if owner, known := datadir.Owner(info); known {
		if !isTrusted(dir, owner) {
			return "", fmt.Errorf("the key in %s is not used: the file belongs to user %d, who is neither this user nor the owner of the database: give a key with --key", path, owner)
		}
		if info.Mode().Perm()&0o022 != 0 {
			return "", fmt.Errorf("the key in %s is not used: others may write to the file (mode %04o): make it 0600, as the server does when it starts", path, info.Mode().Perm())
		}
	}
	key := strings.TrimSpace(string(data))
	if err := apikey.Check(key); err != nil {
		return "", fmt.Errorf("%s holds no key: %w: appview keys rescue makes one for a stopped server", path, err)
	}
	return key, nil
}

// isTrusted reports whether a file of a data directory, or a process that listens there,
// is this user's own. Root acts for the owner of the database.
func isTrusted(dir *datadir.Dir, owner int) bool {
	user := os.Geteuid()
	if owner == user || user != 0 {
		return owner == user
	}
	database, err := dir.Lstat(DatabaseFile)
	if err != nil {
		return false
	}
	of, known := datadir.Owner(database)
	return known && owner == of
}

// writeFile replaces a small file as a whole, readable by the owner alone.
func writeFile(dir *datadir.Dir, name, text string) error {
	return dir.Replace(name, func(f *os.File) error {
		_, err := f.WriteString(text)
		return err
	})
}
