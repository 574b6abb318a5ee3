package server

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/apikey"
	"appview/store/admin"
)

// makeKey makes a key over HTTP.
func (r *rig) makeKey(bearer, body string) (api.Key, result) {
	r.t.Helper()
	a := r.do(http.MethodPost, "/admin/api-keys", body, "Authorization", bearer)
	var k api.Key
	if a.status == http.StatusCreated {
		a.decode(r.t, &k)
	}
	return k, a
}

func (r *rig) keys() api.Keys {
	r.t.Helper()
	var list api.Keys
	r.get("/admin/api-keys").decode(r.t, &list)
	return list
}

func (r *rig) revoke(id uuid.UUID) result {
	r.t.Helper()
	return r.do(http.MethodDelete, "/admin/api-keys/"+id.String(), "")
}

func TestKeyIsShownOnceAndOpensWhatItMay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, a := r.makeKey("Bearer "+testKey, `{"name":" my phone ","permissions":["stats:read","backfill:read","stats:read"],"expires_at":"2999-01-01T00:00:00+01:00"}`)
	exact := regexp.MustCompile(`^\{"id":"[0-9a-f-]{36}","name":"my phone","prefix":"hv_[\w-]{5}","permissions":\["backfill:read","stats:read"\],"state":"usable",` +
		`"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ","expires_at":"2998-12-31T23:00:00Z","last_used_at":null,"revoked_at":null,"key":"hv_[\w-]{43}"\}` + "\n$")
	if a.status != http.StatusCreated || !exact.MatchString(a.body) || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %s", a.status, a.header, a.body)
	}
	if !strings.HasPrefix(k.Key, k.Prefix) || apikey.Check(k.Key) != nil {
		t.Errorf("key %s, prefix %s", k.Key, k.Prefix)
	}
	list := r.keys()
	if len(list.Keys) != 1 || list.Keys[0].ID != k.ID || list.Keys[0].Key != "" || list.Keys[0].LastUsedAt != nil || !list.EnvironmentKey {
		t.Errorf("keys: %+v", list)
	}
	bearer := "Bearer " + k.Key
	if a := r.do(http.MethodGet, "/admin/stats", "", "Authorization", bearer); a.status != http.StatusOK {
		t.Errorf("stats: %d %s", a.status, a.body)
	}
	r.do(http.MethodGet, "/admin/records?did="+string(alice), "", "Authorization", bearer).want(t, 403, "lacks the permission records:read")
	if got := r.keys().Keys[0]; got.LastUsedAt == nil {
		t.Errorf("a key that was used: %+v", got)
	}
	if a := r.revoke(k.ID); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("revoke: %d %q", a.status, a.body)
	}
	r.do(http.MethodGet, "/admin/stats", "", "Authorization", bearer).want(t, 401, "the key was revoked: send the header")
	if a := r.revoke(k.ID); a.status != http.StatusNoContent {
		t.Errorf("revoke again: %d %q", a.status, a.body)
	}
	if got := r.keys().Keys[0]; got.State != api.KeyRevoked || got.RevokedAt == nil {
		t.Errorf("a revoked key: %+v", got)
	}
	r.check(r.store.Close())
	data, err := os.ReadFile(r.path)
	r.check(err)
	if strings.Contains(string(data), k.Key[len(k.Prefix):]) {
		t.Error("the file holds the key")
	}
	if strings.Contains(r.logs.String(), k.Key[len(k.Prefix):]) {
		t.Error("the log holds the key")
	}
}

func TestMistakesInANewKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, text := range map[string]string{
		"":                   "name the key in name",
		`{"name":""}`:        "name is an empty string",
		`{"name":" \n"}`:     "name the key in name",
		`{"name":"a\u0007"}`: "a character that cannot be shown",
		`{"name":"a"}`:       "say in permissions what the key may do: audit:read, backfill:create,",
		`{"name":"` + strings.Repeat("ü", 101) + `","permissions":["*"]}`:      "name has 101 characters, at most 100",
		`{"name":"a","permissions":[]}`:                                        "permissions is an empty list",
		`{"name":"a","permissions":[""]}`:                                      "permissions[0] is an empty string",
		`{"name":"a","permissions":"*"}`:                                       "permissions must be a list of strings",
		`{"name":"a","permissions":["backfill:creat"]}`:                        `there is no permission "backfill:creat": there are audit:read`,
		`{"name":"a","permissions":["Stats:Read"]}`:                            `there is no permission "Stats:Read"`,
		`{"name":"a","permissions":["*"],"expires_at":"tomorrow"}`:             "expires_at must be a time as in 2",
		`{"name":"a","permissions":["*"],"expires_at":"2020-01-01T00:00:00Z"}`: `expires_at "2020-01-01T00:00:00Z" is over already`,
		`{"name":"a","permissions":["*"],"expires_at":"2999-01-01"}`:           "expires_at must be a time as in",
		`{"name":"a","permissions":["*"],"expires":"2999-01-01T00:00:00Z"}`:    `unknown member "expires"`,
	} {
		_, a := r.makeKey("Bearer "+testKey, body)
		a.want(t, 400, text)
	}
	r.do(http.MethodPost, "/admin/api-keys?name=a", "").want(t, 400, "the key is described in the body")
	r.get("/admin/api-keys?limit=1").want(t, 400, "unknown parameter")
	for _, id := range []string{"7", "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-00000000000A"} {
		r.do(http.MethodDelete, "/admin/api-keys/"+id, "").want(t, 404, "there is no key "+id)
	}
	r.do(http.MethodDelete, "/admin/api-keys/7?force=1", "").want(t, 400, "unknown parameter")
	if list := r.keys(); len(list.Keys) != 0 {
		t.Errorf("keys: %+v", list)
	}
}

func TestKeyGrantsOnlyWhatItHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearer := r.bearerOf("hv_manager", nil, api.KeysManage, api.StatsRead)
	for _, permissions := range []string{`"backfill:read"`, `"stats:read","records:delete"`, `"*"`} {
		_, a := r.makeKey(bearer, `{"name":"a","permissions":[`+permissions+`]}`)
		a.want(t, 403, "a key can grant only what it holds itself, and this one lacks ")
	}
	if list := r.keys(); len(list.Keys) != 1 {
		t.Errorf("keys: %+v", list)
	}
	k, a := r.makeKey(bearer, `{"name":"heir","permissions":["stats:read","keys:manage"]}`)
	if a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	_, a = r.makeKey("Bearer "+k.Key, `{"name":"a","permissions":["backfill:read"]}`)
	a.want(t, 403, "lacks backfill:read")
	_, a = r.makeKey("Bearer "+testKey, `{"name":"a","permissions":["*"]}`)
	if a.status != http.StatusCreated {
		t.Errorf("an admin key makes another: %d %s", a.status, a.body)
	}
}

func TestNobodyLocksThemselvesOutUnknowingly(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.AdminKey = "" })
	first := r.bearerOf("hv_first", nil, api.AllPermissions)
	do := func(method, path, body string) result { return r.do(method, path, body, "Authorization", first) }
	var list api.Keys
	do(http.MethodGet, "/admin/api-keys", "").decode(t, &list)
	path := "/admin/api-keys/" + list.Keys[0].ID.String()
	if list.EnvironmentKey {
		t.Error("there is no configured key")
	}
	do(http.MethodDelete, path, "").want(t, 409, "the last usable key that has every permission")
	// A key that has all of today's permissions does not have tomorrow's.
	r.key("hv_all-of-today", nil, api.Permissions()...)
	do(http.MethodDelete, path, "").want(t, 409, "make another first, or stop the server and run appview keys rescue")
	k, a := r.makeKey(first, `{"name":"second","permissions":["*"]}`)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := do(http.MethodDelete, path, ""); a.status != http.StatusNoContent { // of itself
		t.Errorf("the first of two: %d %s", a.status, a.body)
	}
	do(http.MethodGet, "/admin/api-keys", "").want(t, 401, "was revoked")
	if a := r.do(http.MethodGet, "/admin/api-keys", "", "Authorization", "Bearer "+k.Key); a.status != http.StatusOK {
		t.Errorf("the second: %d %s", a.status, a.body)
	}

	r = newRig(t) // with a configured key
	r.key("hv_only", nil, api.AllPermissions)
	if a := r.revoke(r.keys().Keys[0].ID); a.status != http.StatusNoContent {
		t.Errorf("the last one beside the configured one: %d %s", a.status, a.body)
	}
}

func TestRefusedKeysAreLoggedWithABound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone := r.bearerOf("hv_secret-of-carol", func(k *admin.APIKey) { k.Name, k.RevokedAt = "carol", time.Now() }, api.AllPermissions)
	r.do(http.MethodGet, "/admin/stats", "", "Authorization", gone).want(t, 401, "was revoked")
	before, err := r.store.Index.Version(t.Context())
	r.check(err)
	for i := range 500 {
		r.do(http.MethodGet, "/admin/stats", "", "Authorization", fmt.Sprintf("Bearer hv_guess-%d", i)).want(t, 401, "not known here")
	}
	log := r.logs.String()
	if n := strings.Count(log, `msg="key refused"`); n < 2 || n > 100 {
		t.Errorf("%d of 501 refused keys are in the log", n)
	}
	if !strings.Contains(log, "name=carol") || !strings.Contains(log, "remote=127.0.0.1:") || strings.Contains(log, "guess-") || strings.Contains(log, "secret-of") {
		t.Errorf("log: %s", log)
	}
	if after, err := r.store.Index.Version(t.Context()); err != nil || after != before {
		t.Errorf("guesses were written to the file: %v", err)
	}
}
