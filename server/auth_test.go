package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/server/apikey"
	"appview/store/admin"
)

// concrete is a path of the route with its wildcards filled in.
func concrete(rt answer.Route) string {
	return strings.NewReplacer("{id}", "00000000-0000-4000-8000-000000000000", "{file}", "style.css", "{$}", "").Replace(rt.Path)
}

// key stores a key with permissions.
func (r *rig) key(secret string, change func(*admin.APIKey), permissions ...api.Permission) string {
	r.t.Helper()
	k := admin.APIKey{ID: uuid.New(), Name: "test", Prefix: apikey.Prefix(secret), CreatedAt: time.Now()}
	for _, p := range permissions {
		k.Permissions = append(k.Permissions, string(p))
	}
	if change != nil {
		change(&k)
	}
	r.check(r.store.Admin.PutAPIKey(r.t.Context(), secret, k))
	return secret
}

// bearerOf is the header of a stored key with permissions.
func (r *rig) bearerOf(secret string, change func(*admin.APIKey), permissions ...api.Permission) string {
	r.t.Helper()
	return "Bearer " + r.key(secret, change, permissions...)
}

// TestEveryAdminRouteWantsItsPermission goes over the routes themselves: one that
// wants none, or one that nobody can be given, fails it.
func TestEveryAdminRouteWantsItsPermission(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearers := map[api.Permission]string{}
	for _, p := range api.Permissions() {
		bearers[p] = r.bearerOf("hv_only-"+string(p), nil, p)
	}
	for _, rt := range r.server.routes() {
		if !strings.HasPrefix(rt.Path, answer.AdminSpace) {
			if rt.Permission != "" {
				t.Errorf("%s wants a permission outside the admin API", rt.Path)
			}
			if a := r.do(rt.Method, concrete(rt), "", "Authorization", ""); a.status == 401 || a.status == 403 {
				t.Errorf("%s without a key: %d", rt.Path, a.status)
			}
			continue
		}
		if bearers[rt.Permission] == "" {
			t.Errorf("%s %s wants the permission %q, which no key can have", rt.Method, rt.Path, rt.Permission)
			continue
		}
		for p, bearer := range bearers {
			a := r.do(rt.Method, concrete(rt), "", "Authorization", bearer)
			switch {
			case p != rt.Permission:
				a.want(t, 403, "lacks the permission "+string(rt.Permission))
			case a.status == 401 || a.status == 403:
				t.Errorf("%s %s with its permission: %d", rt.Method, rt.Path, a.status)
			}
		}
	}
}

// TestUnusableKeysOpenNoRoute goes over all routes, those that stream too.
func TestUnusableKeysOpenNoRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearers := map[string]string{
		"":                       "no key was sent",
		"Bearer hv_never-a-key":  "not known here",
		"Bearer " + testKey[:20]: "not known here",
	}
	bearers[r.bearerOf("hv_expired", func(k *admin.APIKey) { k.ExpiresAt = time.Now().Add(-time.Second) }, api.AllPermissions)] = "has expired"
	revoked := r.bearerOf("hv_revoked", nil, api.AllPermissions)
	bearers[revoked] = "was revoked"
	for _, rt := range r.server.routes() { // the key was good for every one of them
		if strings.HasPrefix(rt.Path, answer.AdminSpace) {
			if a := r.do(rt.Method, concrete(rt), "", "Authorization", revoked); a.status == 401 || a.status == 403 {
				t.Errorf("%s %s before: %d", rt.Method, rt.Path, a.status)
			}
		}
	}
	if a := r.revoke(r.keyNamed("hv_revoked").ID); a.status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", a.status, a.body)
	}
	tried := 0
	for _, rt := range r.server.routes() {
		if !strings.HasPrefix(rt.Path, answer.AdminSpace) {
			continue
		}
		tried++
		for bearer, text := range bearers {
			a := r.do(rt.Method, concrete(rt), "{", "Authorization", bearer)
			a.want(t, 401, text)
			if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("%s: WWW-Authenticate %q", rt.Path, got)
			}
		}
	}
	if tried < 15 {
		t.Errorf("only %d routes were tried", tried)
	}
}

func TestKeysThatOpenNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.key("hv_revoked", func(k *admin.APIKey) { k.RevokedAt = time.Now() }, api.AllPermissions)
	r.key("hv_expired", func(k *admin.APIKey) { k.ExpiresAt = time.Now().Add(-time.Second) }, api.AllPermissions)
	for header, text := range map[string]string{
		"":                                      "no key was sent",
		testKey:                                 "not of the Bearer scheme",
		"Basic " + testKey:                      "not of the Bearer scheme",
		"Bearer":                                "a key begins with hv_",
		"Bearer ":                               "a key begins with hv_",
		"Bearer xx_unknown":                     "a key begins with hv_",
		"Bearer HV_unknown":                     "a key begins with hv_",
		"Bearer hv_unknown":                     "not known here",
		"Bearer " + testKey[:20]:                "not known here",
		"Bearer " + testKey + "x":               "not known here",
		"Bearer " + testKey + " x":              "holds a space",
		"Bearer  " + testKey:                    "a key begins with hv_",
		"Bearer hv_the key":                     "holds a space",
		"Bearer hv_\u00e9":                      "holds a space or another character",
		"Bearer hv_" + strings.Repeat("x", 600): "holds a space or another character",
		"Bearer hv_revoked":                     "was revoked",
		"Bearer hv_expired":                     "has expired",
	} {
		a := r.do(http.MethodPost, "/admin/backfill", "", "Authorization", header)
		a.want(t, 401, text)
		if !strings.Contains(a.body, "send the header `Authorization: Bearer hv_…`") || a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: %s %v", header, a.body, a.header)
		}
	}
	if n := r.jobsStored(); n != 0 {
		t.Errorf("%d jobs were created", n)
	}
}

func TestTwoAuthorizationHeadersAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/admin/stats", nil)
	r.check(err)
	req.Header["Authorization"] = []string{"Bearer " + testKey, "Bearer " + testKey}
	res, err := r.http.Client().Do(req)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestSchemeInAnyLetterCase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, scheme := range []string{"Bearer", "bearer", "BEARER", "bEaReR"} {
		if a := r.do(http.MethodGet, "/admin/stats", "", "Authorization", scheme+" "+testKey); a.status != 200 {
			t.Errorf("%s: %d %s", scheme, a.status, a.body)
		}
	}
}

func TestWithoutConfiguredKeyOnlyStoredKeysCount(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.AdminKey = "" })
	r.get("/admin/stats").want(t, 401, "not known here")
	r.key("hv_stored", nil, api.AllPermissions)
	if a := r.do(http.MethodGet, "/admin/stats", "", "Authorization", "Bearer hv_stored"); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestKeyIsCheckedBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tooLarge := strings.Repeat("x", 70<<10)
	r.do(http.MethodPost, "/admin/backfill", tooLarge, "Authorization", "").want(t, 401, "no key was sent")
	bearer := "Bearer " + r.key("hv_reader", nil, api.BackfillRead)
	r.do(http.MethodPost, "/admin/backfill", tooLarge, "Authorization", bearer).want(t, 403, "backfill:create")
}

func TestConfiguredKeyMustBeGood(t *testing.T) {
	t.Parallel()
	st := newRig(t).store
	for key, text := range map[string]string{
		"secret-secret-secret-secret":   "must begin with hv_",
		"hv_short":                      "has 8 characters, it needs at least 24",
		"hv_with a space in the middle": "without spaces",
	} {
		_, err := New(Config{Store: st, Jobs: &idleJobs{}, AdminKey: key})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", key, err, text)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(fmt.Sprint(err), "no store\nno jobs") {
		t.Errorf("empty config: %v", err)
	}
}
