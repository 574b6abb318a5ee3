package cmd

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"appview/server"
	"appview/store"
)

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(store.Config{Path: filepath.Join(dir, databaseFile), Log: slog.New(slog.DiscardHandler)})
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

func TestFirstStartMakesAKeyForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "data")
	if err := openDataDir(dir); err != nil {
		t.Fatal(err)
	}
	st := openStore(t, dir)
	path, err := bootstrapKey(t.Context(), st, dir, time.Now())
	if err != nil || path != filepath.Join(dir, keyFile) {
		t.Fatalf("%q, %v", path, err)
	}
	key := strings.TrimSpace(read(t, path))
	if err := server.CheckKey(key); err != nil || len(key) < 43 {
		t.Errorf("key %q: %v", key, err)
	}
	k, err := st.APIKey(t.Context(), key)
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
	if path, err := bootstrapKey(t.Context(), st, dir, time.Now()); err != nil || path != "" {
		t.Errorf("the second start: %q, %v", path, err)
	}
}

func TestStartAdoptsTheKeyThatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, keyFile), testKey+"\n")
	st := openStore(t, dir)
	if _, err := bootstrapKey(t.Context(), st, dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := st.APIKey(t.Context(), testKey); err != nil {
		t.Error(err)
	}
}

func TestStartRefusesAKeyFileWithoutKey(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "secret", "hv_short", "hv_two-keys-in-one-file-1234\nhv_two-keys-in-one-file-1234\n"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, keyFile), text)
		if _, err := bootstrapKey(t.Context(), openStore(t, dir), dir, time.Now()); err == nil || !strings.Contains(err.Error(), "holds no key") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestKeysThatAreNoAdminKeyDoNotCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := openStore(t, dir)
	now := time.Now()
	for secret, k := range map[string]store.APIKey{
		"hv_reader":  {Permissions: []string{"backfill:read"}},
		"hv_revoked": {Permissions: []string{"*"}, RevokedAt: now.Add(-time.Hour)},
		"hv_expired": {Permissions: []string{"*"}, ExpiresAt: now.Add(-time.Hour)},
	} {
		if err := st.PutAPIKey(t.Context(), secret, k); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := bootstrapKey(t.Context(), st, dir, now); err != nil || path == "" {
		t.Errorf("no key was made: %q, %v", path, err)
	}
}
