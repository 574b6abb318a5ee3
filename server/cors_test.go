package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"appview/internal/api"
	"appview/server/answer"
)

const adminOrigin = "https://admin.example.com"

// newCORSRig is a server that lets pages of an origin use the admin API.
func newCORSRig(t *testing.T) *rig {
	t.Helper()
	return newRig(t, withMetrics, func(c *Config) { c.CORSOrigins = []string{"http://localhost:8080", adminOrigin} })
}

// wantReadable fails unless a page of the origin may read the answer, and what it has to.
func (a result) wantReadable(t *testing.T, what, origin string) {
	t.Helper()
	exposed := strings.Split(a.header.Get("Access-Control-Expose-Headers"), ", ")
	for _, name := range []string{"Location", "Retry-After", "ETag", "Appview-Synced-At", "WWW-Authenticate", "X-Request-Id"} {
		if !slices.Contains(exposed, name) {
			t.Errorf("%s: %d: %s is not exposed", what, a.status, name)
		}
	}
	if got := a.header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{origin}) || !slices.Contains(a.header.Values("Vary"), "Origin") {
		t.Errorf("%s: %d %v", what, a.status, a.header)
	}
}

// preflight asks what a page of the origin may send.
func (r *rig) preflight(path, origin string) result {
	r.t.Helper()
	return r.do(http.MethodOptions, path, "", "Authorization", "", "Origin", origin,
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,idempotency-key,last-event-id")
}

func TestAdministratorsPagesOfAnAllowedOrigin(t *testing.T) {
	t.Parallel()
	r := newCORSRig(t)
	for _, rt := range r.server.routes() {
		if isOpenPath(rt.Path) || rt.Path == answer.MetricsPath {
			continue
		}
		a := r.preflight(concrete(rt), adminOrigin)
		a.wantReadable(t, "preflight of "+rt.Path, adminOrigin)
		methods := strings.Split(a.header.Get("Access-Control-Allow-Methods"), ", ")
		if a.status != http.StatusNoContent || a.body != "" || !slices.Contains(methods, rt.Method) {
			t.Errorf("%s: preflight %d %v", rt.Path, a.status, a.header)
		}
		headers := strings.Split(strings.ToLower(a.header.Get("Access-Control-Allow-Headers")), ", ")
		for _, name := range []string{"authorization", "content-type", "idempotency-key", "last-event-id", "if-none-match"} {
			if !slices.Contains(headers, name) {
				t.Errorf("%s: %s may not be sent", rt.Path, name)
			}
		}
		for _, bearer := range []string{"Bearer " + testKey, ""} { // with an answer, or a 401
			a = r.do(rt.Method, concrete(rt), "", "Authorization", bearer, "Origin", adminOrigin)
			a.wantReadable(t, rt.Method+" "+rt.Path, adminOrigin)
		}
		if a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: cookies are allowed", rt.Path)
		}
	}
}

func TestPagesOfAnAllowedOriginReadErrors(t *testing.T) {
	t.Parallel()
	r := newCORSRig(t)
	r.server.guesses.every, r.server.guesses.patience = 1<<50, 0
	reader := r.bearerOf("hv_reader", nil, api.BackfillRead)
	asks := func(method, path, body, bearer string) result {
		return r.do(method, path, body, "Authorization", bearer, "Origin", "http://localhost:8080")
	}
	r.jobs.panics = true
	for _, c := range []struct {
		status int
		a      result
	}{
		{401, asks(http.MethodGet, "/admin/stats", "", "")},
		{403, asks(http.MethodGet, "/admin/stats", "", reader)},
		{404, asks(http.MethodGet, "/admin/nothing", "", reader)},
		{404, asks(http.MethodGet, "/nothing", "", "")},
		{404, asks(http.MethodGet, "/admin//stats", "", reader)},
		{405, asks(http.MethodPut, "/admin/stats", "", reader)},
		{400, asks(http.MethodPost, "/admin/backfill", "null", "Bearer "+testKey)},
		{413, asks(http.MethodPost, "/admin/backfill", `{"did":"`+strings.Repeat("x", answer.MaxBody)+`"}`, "Bearer "+testKey)},
		{500, asks(http.MethodPost, "/admin/backfill", "{}", "Bearer "+testKey)},
	} {
		if c.a.status != c.status {
			t.Errorf("got %d %s, want %d", c.a.status, c.a.body, c.status)
		}
		c.a.wantReadable(t, "error", "http://localhost:8080")
	}
	for range guessBurst {
		asks(http.MethodGet, "/admin/stats", "", "Bearer hv_unknown")
	}
	a := asks(http.MethodGet, "/admin/stats", "", "Bearer hv_unknown")
	a.want(t, http.StatusTooManyRequests, "too many wrong keys")
	a.wantReadable(t, "429", "http://localhost:8080")
}

func TestPagesOfOtherOriginsReadNothingOfAdministrators(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*rig{"off": newRig(t, withMetrics), "on": newCORSRig(t)} {
		for _, origin := range []string{"https://evil.example", "null", "http://admin.example.com", "https://admin.example.com:8443", "https://admin.example.com.", "https://ADMIN.example.com", "https://x.admin.example.com", "*", ""} {
			for _, rt := range r.server.routes() {
				if isOpenPath(rt.Path) {
					continue
				}
				got := r.do(rt.Method, concrete(rt), "", "Origin", origin)
				asked := r.preflight(concrete(rt), origin)
				for _, a := range []result{got, asked} {
					for header := range a.header {
						if strings.HasPrefix(header, "Access-Control-") {
							t.Errorf("%s: %s from %q: %d %v", name, rt.Path, origin, a.status, a.header)
						}
					}
				}
				if asked.status/100 == 2 || got.status == http.StatusUnauthorized {
					t.Errorf("%s: %s from %q: %d, preflight %d", name, rt.Path, origin, got.status, asked.status)
				}
				if varies := slices.Contains(got.header.Values("Vary"), "Origin"); varies != (name == "on" && rt.Path != answer.MetricsPath) {
					t.Errorf("%s: %s varies with the origin: %t", name, rt.Path, varies)
				}
			}
		}
	}
}

func isOpenPath(path string) bool {
	return strings.HasPrefix(path, answer.APISpace) || strings.HasPrefix(path, answer.XRPCSpace)
}

func TestAllowedOriginChangesNothingElse(t *testing.T) {
	t.Parallel()
	r := newCORSRig(t)
	for _, origin := range []string{adminOrigin, "https://evil.example"} {
		for _, path := range []string{"/api/records?collection=" + note.String(), "/xrpc/com.atproto.repo.listRecords?repo=" + alice.String() + "&collection=" + note.String()} {
			if got := r.do(http.MethodGet, path, "", "Origin", origin, "Authorization", "").header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{"*"}) {
				t.Errorf("%s from %s: %v", path, origin, got)
			}
		}
		if a := r.do(http.MethodGet, answer.MetricsPath, "", "Origin", origin); a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("metrics from %s: %d %v", origin, a.status, a.header)
		}
	}
	// No preflight: what a page of the allowed origin asks needs a key all the same.
	r.do(http.MethodOptions, "/admin/stats", "", "Authorization", "", "Origin", adminOrigin).want(t, http.StatusUnauthorized, "no key")
	r.do(http.MethodDelete, "/admin/records?collection=a.b.c", "", "Authorization", "", "Origin", adminOrigin).want(t, http.StatusUnauthorized, "no key")
	if a := r.do(http.MethodPost, "/admin/backfill", "{}", "Origin", adminOrigin); a.status != http.StatusCreated || a.header.Get("Location") == "" {
		t.Errorf("create: %d %v", a.status, a.header)
	}
}

func TestOriginsAreTakenAsBrowsersSendThem(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"https://admin.example.com", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:3000", "https://xn--bcher-kva.example", "https://a.example:80"} {
		if got, err := ParseOrigin(text); err != nil || got != text {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"https://Admin.example.com":           "write https://admin.example.com",
		"HTTPS://admin.example.com":           "write https://admin.example.com",
		"https://admin.example.com/":          "write https://admin.example.com",
		"https://admin.example.com:443":       "write https://admin.example.com",
		"http://admin.example.com:80/":        "write http://admin.example.com",
		"https://admin.example.com:08443":     "write https://admin.example.com:8443",
		"http://[2001:DB8:0::7]":              "write http://[2001:db8::7]",
		"https://admin.example.com:":          "write https://admin.example.com",
		"*":                                   "is no origin",
		"null":                                "is no origin",
		"":                                    "is no origin",
		"admin.example.com":                   "is no origin",
		"//admin.example.com":                 "is no origin",
		"https://*.example.com":               "is no origin",
		"https://a.example https://b.example": "is no origin",
		"https://admin.example.com/x":         "is no origin",
		"https://admin.example.com?":          "is no origin",
		"https://admin.example.com#":          "is no origin",
		"https://me@admin.example.com":        "is no origin",
		"https://b\u00fccher.example":         "is no origin",
		"file:///etc":                         "is no origin",
		"https://":                            "is no origin",
	} {
		if got, err := ParseOrigin(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, why)
		}
	}
	r := newRig(t)
	if _, err := New(Config{Store: r.store, Jobs: r.jobs, CORSOrigins: []string{"*"}}); err == nil || !strings.Contains(err.Error(), `"*" is no origin`) {
		t.Errorf("got %v", err)
	}
}
