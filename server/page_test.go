package server

import (
	"net/http"
	"strings"
	"testing"

	"appview/server/web"
)

func TestThePageIsServedWithAStrictPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/web/main.js": "text/javascript; charset=utf-8", "/web/style.css": "text/css; charset=utf-8", "/web/icon.svg": "image/svg+xml",
	} {
		a := r.do(http.MethodGet, path, "", "Authorization", "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != kind || a.body == "" {
			t.Errorf("%s: %d %s", path, a.status, a.header.Get("Content-Type"))
		}
		for name, want := range map[string]string{
			"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Cache-Control": "no-cache", "Cross-Origin-Opener-Policy": "same-origin", "Content-Security-Policy": web.Policy,
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		again := r.do(http.MethodGet, path, "", "Authorization", "", "If-None-Match", a.header.Get("ETag"))
		if again.status != http.StatusNotModified || again.body != "" {
			t.Errorf("%s again: %d", path, again.status)
		}
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"} {
		if !strings.Contains(web.Policy, part) || strings.Contains(web.Policy, "unsafe") {
			t.Errorf("the policy is %s", web.Policy)
		}
	}
	r.get("/web/index.html").want(t, 404, "there is no route") // what is relative to / is not to there
	r.do(http.MethodPost, "/", "").want(t, 405, "does not answer POST")
}
