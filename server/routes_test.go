package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"appview/server/answer"
)

func TestUnknownRoutesAreNotFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{
		"/nothing", "/web/", "/web/nothing.js", "/web/../server.go", "/admin", "/admin/", "/admin/nothing", "/admin/backfill/", "/admin/backfill/status/", "/admin/backfill/a/b",
		"/admin/backfill/00000000-0000-4000-8000-000000000000/stop", "/admin/records/", "/admin//stats", "/admin/./stats",
		"/x/../admin/stats", "/admin%2Fstats", "/api/nothing", "/metrics", "//",
	} {
		a := r.get(path)
		a.want(t, 404, "there is no route /")
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: Content-Type %q", path, got)
		}
	}
	for _, path := range []string{"/admin", "/admin/", "/admin/nothing", "/admin/backfill/a/b", "/x/../admin/nothing"} {
		want := 401
		if strings.HasPrefix(path, "/x") {
			want = 404 // not under /admin, and leads nowhere
		}
		if a := r.do(http.MethodGet, path, "", "Authorization", ""); a.status != want {
			t.Errorf("%s without a key: %d, want %d", path, a.status, want)
		}
	}
}

func TestWrongMethodsAreToldTheRightOnes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	answered := map[string]bool{}
	for _, rt := range r.server.routes() {
		answered[rt.Method+rt.Path] = true
	}
	for _, rt := range r.server.routes() {
		for _, m := range methods {
			if answered[m+rt.Path] {
				continue
			}
			a := r.do(m, concrete(rt), "")
			a.want(t, 405, "does not answer "+m)
			if allow := strings.Split(a.header.Get("Allow"), ", "); !slices.Contains(allow, rt.Method) {
				t.Errorf("%s %s: Allow %v", m, rt.Path, allow)
			}
			if strings.HasPrefix(rt.Path, answer.AdminSpace) {
				r.do(m, concrete(rt), "", "Authorization", "").want(t, 401, "no key")
			}
		}
	}
}

func TestHeadIsAnsweredAsGetWithoutBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, rt := range r.server.routes() {
		if rt.Method != http.MethodGet || strings.HasPrefix(rt.Path, answer.XRPCSpace) {
			continue
		}
		get, head := r.get(concrete(rt)), r.do(http.MethodHead, concrete(rt), "")
		if head.status != get.status || head.body != "" {
			t.Errorf("%s: GET %d, HEAD %d %q", rt.Path, get.status, head.status, head.body)
		}
	}
}

func TestOtherOriginsMayReadWhatIsPublic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, rt := range r.server.routes() {
		public := strings.HasPrefix(rt.Path, answer.APISpace) || strings.HasPrefix(rt.Path, answer.XRPCSpace)
		a := r.do(http.MethodGet, concrete(rt), "", "Origin", "https://app.example")
		if got := a.header.Get("Access-Control-Allow-Origin") == "*"; got != public {
			t.Errorf("%s: Access-Control-Allow-Origin is there: %t", rt.Path, got)
		}
		if !public {
			continue
		}
		a = r.do(http.MethodOptions, concrete(rt), "", "Origin", "https://app.example", "Authorization", "", "Access-Control-Request-Method", "GET")
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Methods") != "GET, HEAD" || a.header.Get("Access-Control-Allow-Headers") != "*, Authorization" {
			t.Errorf("%s: preflight %d %v", rt.Path, a.status, a.header)
		}
	}
}

func TestBrowsersHearOfWhatDoesNotExist(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/xrpc/com.atproto.repo.describeRepo", "/api/nothing"} {
		a := r.do(http.MethodOptions, path, "", "Authorization", "", "Access-Control-Request-Method", "GET")
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: preflight %d %v", path, a.status, a.header)
		}
		if a = r.get(path); a.status/100 == 2 || a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
}

func TestEveryAnswerHasARequestID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seen := map[string]bool{}
	for _, path := range []string{"/health", "/health", "/nothing", "/admin//x", "/xrpc/a.b.c"} {
		id := r.get(path).header.Get("X-Request-Id")
		if id == "" || seen[id] {
			t.Errorf("%s: request id %q", path, id)
		}
		seen[id] = true
	}
}
