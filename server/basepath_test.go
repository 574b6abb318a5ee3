package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"appview/internal/api"
)

func TestBasePathsAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "/": "", "/appview": "/appview", "/appview/": "/appview", "/api/appview": "/api/appview", "/a/b.c/~d_e-1/": "/a/b.c/~d_e-1",
		"/adminx": "/adminx", "/admin/appview": "/admin/appview", "/healthy": "/healthy", "/...": "/...",
	} {
		if got, err := ParseBasePath(text); err != nil || got != want {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"appview": "does not begin with a slash", "https://x.example/appview": "does not begin with a slash", "//": "empty segment", "//x": "empty segment", "/a//b": "empty segment", "/a//": "empty segment",
		"/..": "leads elsewhere", "/a/../b": "leads elsewhere", "/./": "leads elsewhere",
		"/a?b": "may hold", "/a#b": "may hold", "/a%20b": "no %-escapes", "/%61": "no %-escapes", "/a b": "may hold", "/ä": "may hold", "/a\\b": "may hold", "/a\nb": "may hold", "/{x}": "may hold", "/a;b": "may hold",
		"/admin": "beginning of the route /admin/", "/admin/backfill/x/": "beginning of the route /admin/backfill/{id}", "/api": "beginning of the route /api/records",
		"/xrpc": "beginning", "/web": "beginning", "/web/x": "beginning", "/health": "beginning", "/ready": "beginning", "/metrics": "beginning", "/openapi.json": "beginning",
	} {
		if got, err := ParseBasePath(text); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "/appview/") {
			t.Errorf("%q is %q: %v", text, got, err)
		}
	}
	if _, err := New(Config{BasePath: "x"}); err == nil || !strings.Contains(err.Error(), `the base path "x"`) {
		t.Errorf("a server with it: %v", err)
	}
}

// behind is a server like everything, but behind a path, and over the same store.
func (r *rig) behind(path string) *rig {
	r.t.Helper()
	cfg := r.server.cfg
	cfg.BasePath = path
	other := *r
	var err error
	other.server, err = New(cfg)
	r.check(err)
	other.base = other.server.cfg.BasePath
	other.http = httptest.NewServer(other.server.Handler())
	r.t.Cleanup(other.http.Close)
	return &other
}

func TestEveryRouteAnswersBehindTheBasePathAlone(t *testing.T) {
	t.Parallel()
	plain := everything(t)
	r := plain.behind("/deep/appview/")
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions}
	paths := map[string]bool{"/nothing": true, "/admin": true, "/admin/nothing": true, "/xrpc/a.b.c": true, "/api/nothing": true, "/web/": true, "//": true, "/admin//stats": true}
	for _, rt := range r.server.routes() {
		paths[concrete(rt)] = true
	}
	for path := range paths {
		for _, method := range methods {
			for _, key := range []string{"", "Bearer " + testKey} {
				want, got := plain.do(method, path, "", "Authorization", key), r.do(method, r.base+path, "", "Authorization", key)
				if got.status != want.status || (want.status >= 400 && got.body != want.body) {
					t.Errorf("%s %s with %q: %d %s, want %d %s", method, path, key, got.status, got.body, want.status, want.body)
				}
				for name := range want.header {
					switch name {
					case "Date", "X-Request-Id", "Location", "Content-Length", "Etag", "Appview-Seq", "Appview-Synced-At":
						continue
					}
					if g, w := got.header.Get(name), want.header.Get(name); g != w {
						t.Errorf("%s %s: %s is %q, want %q", method, path, name, g, w)
					}
				}
				if isProbe(path) {
					continue
				}
				outside := r.do(method, path, "", "Authorization", key)
				if outside.status != 404 || outside.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %s outside of the base path: %d %s", method, path, outside.status, outside.body)
				}
				if method == http.MethodGet {
					outside.want(t, 404, "everything is below /deep/appview/ here (--base-path)")
				}
			}
		}
	}
	if n := plain.jobsStored(); n < 2 {
		t.Errorf("%d jobs were made", n) // one of each server
	}
}

func TestProbesAnswerWithoutTheBasePathToo(t *testing.T) {
	t.Parallel()
	r := everything(t).behind("/appview")
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		for _, at := range []string{path, r.base + path} {
			if a := r.do(http.MethodGet, at, "", "Authorization", ""); a.status != http.StatusOK {
				t.Errorf("%s: %d %s", at, a.status, a.body)
			}
		}
	}
}

func TestBasePathIsFoundHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	r := everything(t).behind("/appview/")
	for path, want := range map[string]int{
		"/appview/admin/stats": 200, "/%61ppview/admin/stats": 200, "/appview/%61dmin/stats": 200, "/%61ppvie%77/admin/backfill/status?limit=1": 200,
		"/appview%2Fadmin/stats": 404, "/appview/%2e%2e/admin/stats": 404, "/appview/../appview/admin/stats": 404, "/appview//admin/stats": 404, "//appview/admin/stats": 404,
		"/appview/./admin/stats": 404, "/appviewx/admin/stats": 404, "/Appview/admin/stats": 404, "/appview/appview/admin/stats": 404, "/x/../appview/admin/stats": 404,
		"/admin/stats": 404, "/": 404, "/appview/admin%2Fstats": 404,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+path, http.NoBody)
		r.check(err)
		req.Header.Set("Authorization", "Bearer "+testKey)
		res, err := r.http.Client().Do(req)
		r.check(err)
		body, err := io.ReadAll(res.Body)
		r.check(err)
		r.check(res.Body.Close())
		if res.StatusCode != want {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

func TestBasePathWithoutItsSlashLeadsToThePage(t *testing.T) {
	t.Parallel()
	r := everything(t).behind("/deep/appview")
	client := *r.http.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, r.http.URL+"/deep/appview?x=1", http.NoBody)
		r.check(err)
		res, err := client.Do(req)
		r.check(err)
		r.check(res.Body.Close())
		if to := res.Header.Get("Location"); res.StatusCode != http.StatusTemporaryRedirect || to != "./appview/?x=1" {
			t.Errorf("%s: %d to %q", method, res.StatusCode, to)
		}
		// A proxy may show it to the browser as another path.
		at, err := url.Parse("https://proxy.example/shown/appview")
		r.check(err)
		to, err := at.Parse(res.Header.Get("Location"))
		if err != nil || to.String() != "https://proxy.example/shown/appview/?x=1" {
			t.Errorf("a browser goes to %v, %v", to, err)
		}
	}
	r.do(http.MethodPost, "/deep/appview", "").want(t, 404, "everything is below /deep/appview/ here")
	r.get("/deep").want(t, 404, "everything is below")
}

func TestLocationStandsBehindTheBasePath(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.BasePath = "/appview" })
	created := r.do(http.MethodPost, "/appview/admin/backfill", `{"did":"`+alice.String()+`"}`)
	var ref api.JobRef
	created.decode(t, &ref)
	at := created.header.Get("Location")
	if at != "/appview/admin/backfill/"+ref.ID.String() {
		t.Errorf("the job is at %s", at)
	}
	if a := r.get(at); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.do(http.MethodPost, at+"/cancel", ""); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	_, err := r.store.Jobs.FinishJob(t.Context(), 1, nil)
	r.check(err)
	retried := r.do(http.MethodPost, at+"/retry", "")
	retried.decode(t, &ref)
	if at := retried.header.Get("Location"); at != "/appview/admin/backfill/"+ref.ID.String() {
		t.Errorf("the retry is at %s", at)
	}
}

// A proxy strips the path of the public URL, or replaces it by the base path.
func TestLocationStandsBehindThePathOfThePublicURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, public, want string }{
		{"", "https://x.example", ""}, {"", "https://x.example/appview/", "/appview"}, {"/inner", "https://x.example/outer/a%20b", "/outer/a%20b"}, {"/inner", "https://x.example", "/inner"},
	} {
		public, err := ParsePublicURL(c.public)
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, func(cfg *Config) { cfg.BasePath, cfg.PublicURL = c.base, public })
		a := r.do(http.MethodPost, c.base+"/admin/backfill", "")
		var ref api.JobRef
		a.decode(t, &ref)
		if at := a.header.Get("Location"); at != c.want+"/admin/backfill/"+ref.ID.String() {
			t.Errorf("%+v: the job is at %s", c, at)
		}
	}
}

// The address of a socket has no place for a path.
func TestSocketsAnswerWithAndWithoutTheBasePath(t *testing.T) {
	t.Parallel()
	r := everything(t).behind("/appview")
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	r.check(err)
	ctx, stop := context.WithCancel(t.Context())
	run := running{stop: stop, done: make(chan error, 1)}
	go func() { run.done <- r.server.Run(ctx, l) }()
	defer func() { stop(); run.wait(t) }()
	client := &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for at, want := range map[string]int{
		"/admin/stats": 200, "/appview/admin/stats": 200, "/": 200, "/appview/": 200, "/appview": 307, "/health": 200, "/appview/health": 200,
		"/appview/appview/health": 404, "/nothing": 404, "/appview/nothing": 404, "/appview%2Fhealth": 404,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+at, http.NoBody)
		r.check(err)
		req.Header.Set("Authorization", "Bearer "+testKey)
		res, err := client.Do(req)
		r.check(err)
		r.check(res.Body.Close())
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", at, res.StatusCode, want)
		}
	}
}

// Whoever reads the description finds the server where the description is.
func TestDescriptionLeadsToItsServer(t *testing.T) {
	t.Parallel()
	r := everything(t).behind("/appview")
	var doc struct{ Servers []struct{ URL string } }
	if err := json.Unmarshal([]byte(r.get("/appview/openapi.json").body), &doc); err != nil || len(doc.Servers) != 1 {
		t.Fatalf("%v, %v", doc, err)
	}
	for at, want := range map[string]string{
		"https://x.example/openapi.json": "https://x.example", "https://x.example/appview/openapi.json": "https://x.example/appview", "https://x.example/a/b/openapi.json": "https://x.example/a/b",
	} {
		u, err := url.Parse(at)
		r.check(err)
		server, err := u.Parse(doc.Servers[0].URL)
		if err != nil || strings.TrimSuffix(server.String(), "/") != want {
			t.Errorf("by %s the server is at %v, %v", at, server, err)
		}
	}
}

// What nginx gathers in a file of its own comes late, and breaks off late.
func TestProxiesAreAskedNotToBufferWhatIsStreamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job := r.create("{}").String()
	for path, want := range map[string]string{
		"/admin/records/export": "no", "/admin/backup": "no", "/admin/backfill/" + job + "/report": "no", "/admin/backfill/" + job + "/events": "no", "/admin/stats": "",
	} {
		if a := r.do(http.MethodHead, path, ""); a.status != http.StatusOK || a.header.Get("X-Accel-Buffering") != want {
			t.Errorf("%s: %d, %q", path, a.status, a.header.Get("X-Accel-Buffering"))
		}
	}
}
