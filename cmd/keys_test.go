package cmd

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/server/apikey"
	"appview/store/admin"
)

func TestKeysFromTheirMakingToTheirEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serveIn(t, newWorld(t), dir)
	at := []string{"--data-dir", dir}
	key := strings.TrimSpace(want(t, exitOK, "hv_", nil, append([]string{"keys", "create", "the website", "--permission", "stats:read,audit:read", "--expires", "90d"}, at...)...))
	if err := apikey.Check(key); err != nil {
		t.Fatalf("%q is printed where the key alone should be: %v", key, err)
	}
	want(t, exitOK, "tracked ", nil, "stats", "--url", s.url, "--key", key)
	want(t, exitError, "lacks the permission backfill:read", nil, "backfill", "list", "--url", s.url, "--key", key)
	want(t, exitError, "lacks the permission keys:manage", nil, "keys", "list", "--url", s.url, "--key", key)
	listed := want(t, exitOK, "the website", nil, append([]string{"keys", "list"}, at...)...)
	if strings.Contains(listed, key) || strings.Count(listed, "usable") != 2 {
		t.Errorf("listed:\n%s", listed)
	}
	var list struct {
		Keys []struct{ ID, Name string }
	}
	if err := json.Unmarshal([]byte(want(t, exitOK, "{", nil, append([]string{"keys", "list", "--json"}, at...)...)), &list); err != nil || len(list.Keys) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	ids := map[string]string{}
	for _, k := range list.Keys {
		ids[k.Name] = k.ID
	}
	want(t, exitError, "the last usable key that has every permission", nil, append([]string{"keys", "revoke", ids["admin"]}, at...)...)
	want(t, exitOK, "is revoked", nil, append([]string{"keys", "revoke", ids["the website"]}, at...)...)
	want(t, exitError, "the key was revoked", nil, "stats", "--url", s.url, "--key", key)
	log := want(t, exitOK, "key:revoke", nil, append([]string{"audit"}, at...)...)
	if strings.Contains(log, key) || !strings.Contains(log, "admin (hv_") || !strings.Contains(log, "key:create") || strings.Count(log, "start ") != 1 {
		t.Errorf("audit log:\n%s", log)
	}
	if first := want(t, exitOK, "there are more: --cursor ", nil, append([]string{"audit", "--limit", "1"}, at...)...); strings.Count(first, "\n") != 4 {
		t.Errorf("one event:\n%s", first)
	}
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.log)
	}
}

func TestExpiryIsATimeOrADuration(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"": "", "12h": "2026-01-31T00:00:00Z", "90d": "2026-04-30T12:00:00Z", "2030-01-31T01:00:00+01:00": "2030-01-31T00:00:00Z",
	} {
		if got, err := parseExpiry(text, now); got != want || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"x", "0d", "-1d", "-1h", "d", "2030-01-31"} {
		if got, err := parseExpiry(text, now); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

func TestRescueMakesAnAdminKeyOfAStoppedServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), filepath.Join(t.TempDir(), "data")
	want(t, exitError, "there is no database", nil, "keys", "rescue", "--data-dir", dir)
	s := serveIn(t, world, dir)
	lost := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	manager := strings.TrimSpace(want(t, exitOK, "hv_", nil, "keys", "create", "manager", "--permission", "keys:manage", "--data-dir", dir))
	reader := strings.TrimSpace(want(t, exitOK, "hv_", nil, "keys", "create", "reader", "--permission", "stats:read", "--data-dir", dir))
	want(t, exitLocked, "stop it, or choose another --data-dir", nil, "keys", "rescue", "--data-dir", dir)
	s.end()

	key := strings.TrimSpace(want(t, exitOK, "hv_", nil, "keys", "rescue", "--data-dir", dir))
	if filed := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile))); filed != key || key == lost {
		t.Errorf("printed %q, in the file is %q, lost was %q", key, filed, lost)
	}
	s = serveIn(t, world, dir)
	for _, key := range []string{key, lost, manager} {
		want(t, exitOK, "KEY", nil, "keys", "list", "--url", s.url, "--key", key)
	}
	s.end()

	var done rescued
	if err := json.Unmarshal([]byte(want(t, exitOK, `"revoked": 3`, nil, "keys", "rescue", "--revoke-others", "--json", "--data-dir", dir)), &done); err != nil {
		t.Fatal(err)
	}
	s = serveIn(t, world, dir)
	for _, key := range []string{key, lost, manager} {
		want(t, exitError, "was revoked", nil, "keys", "list", "--url", s.url, "--key", key)
	}
	want(t, exitOK, "tracked ", nil, "stats", "--url", s.url, "--key", reader)
	if log := want(t, exitOK, "data_dir", nil, "audit", "--data-dir", dir); strings.Count(log, "data_dir") != 5 {
		t.Errorf("audit log:\n%s", log)
	}
	s.end()

	write(t, filepath.Join(dir, service.DatabaseFile), strings.Repeat("this is no database. ", 10_000))
	want(t, exitDamaged, "restore a backup", nil, "keys", "rescue", "--data-dir", dir)
}

func TestStartDoesNotBringARevokedKeyBack(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]admin.APIKey{
		"revoked": {Permissions: []string{"*"}, RevokedAt: time.Now()},
		"expired": {Permissions: []string{"*"}, ExpiresAt: time.Now().Add(-time.Hour)},
		"lesser":  {Permissions: []string{"stats:read"}},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, service.KeyFile), testKey+"\n")
		st := openStore(t, dir)
		if err := st.Admin.PutAPIKey(t.Context(), testKey, k); err != nil {
			t.Fatal(err)
		}
		if path, err := service.BootstrapKey(t.Context(), st, dirOf(t, dir), time.Now()); err != nil || path == "" {
			t.Fatalf("%s: %q, %v", name, path, err)
		}
		filed := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
		if made, err := st.Admin.APIKey(t.Context(), filed); err != nil || filed == testKey || !made.Admin() || !made.Usable(time.Now()) {
			t.Errorf("%s: the key of the file is %+v, %v", name, made, err)
		}
		if old, err := st.Admin.APIKey(t.Context(), testKey); err != nil || old.Admin() && old.Usable(time.Now()) {
			t.Errorf("%s: the old key is %+v, %v", name, old, err)
		}
	}
}
