package cmd

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/datadir"
	"appview/server/apikey"
	"appview/store"
	"appview/store/admin"
)

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(store.Config{Path: filepath.Join(dir, service.DatabaseFile), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// dirOf opens a data directory.
func dirOf(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

func TestFirstStartMakesAKeyForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "data")
	d, err := service.MakeDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	st := openStore(t, dir)
	path, err := service.BootstrapKey(t.Context(), st, d, time.Now())
	if err != nil || path != filepath.Join(dir, service.KeyFile) {
		t.Fatalf("%q, %v", path, err)
	}
	key := strings.TrimSpace(read(t, path))
	if err := apikey.Check(key); err != nil || len(key) < 43 {
		t.Errorf("key %q: %v", key, err)
	}
	k, err := st.Admin.APIKey(t.Context(), key)
	if err != nil || len(k.Permissions) != 1 || k.Permissions[0] != "*" || !strings.HasPrefix(key, k.Prefix) {
		t.Errorf("stored key %+v: %v", k, err)
	}
	if runtime.GOOS != "windows" {
		for name, mode := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
			info, err := os.Stat(name)
			if err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s has mode %v, want %v: %v", name, info.Mode(), mode, err)
			}
		}
	}
	if path, err := service.BootstrapKey(t.Context(), st, d, time.Now()); err != nil || path != "" {
		t.Errorf("the second start: %q, %v", path, err)
	}
}

// TestKeyThatTheDatabaseDoesNotKnowIsNeverAdopted: whoever may write to the directory
// could have put it there.
func TestKeyThatTheDatabaseDoesNotKnowIsNeverAdopted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{testKey + "\n", "", "secret", "hv_short", "hv_two-keys-in-one-file-1234\nhv_two-keys-in-one-file-1234\n"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, service.KeyFile), text)
		write(t, filepath.Join(dir, service.KeyFile+".part-CRASHED"), testKey+"\n")
		st := openStore(t, dir)
		if path, err := service.BootstrapKey(t.Context(), st, dirOf(t, dir), time.Now()); err != nil || path == "" {
			t.Errorf("%q: %q, %v", text, path, err)
		}
		if _, err := st.Admin.APIKey(t.Context(), testKey); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: the planted key: %v", text, err)
		}
		if k, err := st.Admin.APIKey(t.Context(), strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))); err != nil || !k.Admin() {
			t.Errorf("%q: the key of the file: %+v, %v", text, k, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, service.KeyFile+".part-*")); err != nil || len(left) != 0 {
			t.Errorf("%q: left behind: %v, %v", text, left, err)
		}
	}
}

func TestKeysThatAreNoAdminKeyDoNotCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := openStore(t, dir)
	now := time.Now()
	for secret, k := range map[string]admin.APIKey{
		"hv_reader":  {Permissions: []string{"backfill:read"}},
		"hv_revoked": {Permissions: []string{"*"}, RevokedAt: now.Add(-time.Hour)},
		"hv_expired": {Permissions: []string{"*"}, ExpiresAt: now.Add(-time.Hour)},
	} {
		if err := st.Admin.PutAPIKey(t.Context(), secret, k); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := service.BootstrapKey(t.Context(), st, dirOf(t, dir), now); err != nil || path == "" {
		t.Errorf("no key was made: %q, %v", path, err)
	}
}
