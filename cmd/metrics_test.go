package cmd

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/sandbox"
)

// page is what a URL answers without a key.
func page(t *testing.T, url string) (status int, body string) {
	t.Helper()
	return pageAs(t, url, "", "")
}

// pageAs is what a URL, perhaps of a socket, answers under a name to whoever has a key.
func pageAs(t *testing.T, url, host, key string) (status int, body string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if socket, path, isSocket := strings.Cut(url, "//"); isSocket && strings.HasPrefix(socket, service.UnixScheme) {
		url = "http://localhost/" + path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(socket, service.UnixScheme))
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func TestMetricsOfAServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	want(t, exitOK, "completed", nil, "backfill", "create", "--watch", "--collection", sandbox.StatusCollection.String(), "--data-dir", dir)
	status, text := page(t, s.url+"/metrics")
	for _, line := range []string{
		`appview_jobs{status="completed"} 1`, `appview_hosts{kind="relay",state="active"} 1`, `appview_network_outage 0`,
		`appview_http_requests_total{code="201",method="POST",route="/admin/backfill"} 1`, "go_goroutines ",
	} {
		if status != http.StatusOK || !strings.Contains(text, line) {
			t.Errorf("%d, without %s:\n%s", status, line, text)
		}
	}
	for _, name := range []string{
		`appview_repos_settled_total{class="done",reason="exact"}`, `appview_records_settled_total{change="created"}`,
		`appview_host_requests_total{code="200",kind="pds"}`, "appview_commit_duration_seconds_count", "appview_index_records",
	} {
		if strings.Contains(text, name+" 0\n") || !strings.Contains(text, name+" ") {
			t.Errorf("%s has counted nothing:\n%s", name, text)
		}
	}
	if status, _ := page(t, s.url+"/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("profiles for everybody: %d", status)
	}
	s.end()
}

func TestMetricsOnAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir, "--metrics-listen", "127.0.0.1:0")
	at := s.measuredAt()
	if status, text := page(t, "http://"+at+"/metrics"); status != http.StatusOK || !strings.Contains(text, "appview_build_info{") {
		t.Errorf("metrics: %d\n%s", status, text)
	}
	if status, _ := page(t, "http://"+at+"/debug/pprof/heap"); status != http.StatusOK {
		t.Errorf("a profile: %d", status)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if status, _ := page(t, s.url+path); status != http.StatusNotFound {
			t.Errorf("%s with everything else: %d", path, status)
		}
	}
	if status, _ := page(t, "http://"+at+"/admin/stats"); status != http.StatusNotFound {
		t.Errorf("admin API beside the metrics: %d", status)
	}
	taken := strings.TrimPrefix(s.url, "http://")
	want(t, exitError, "choose another with --metrics-listen", nil, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0",
		"--metrics-listen", taken, "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d", code)
	}
}

// measuredAt is the address of the metrics.
func (s *serving) measuredAt() string {
	s.t.Helper()
	_, after, _ := strings.Cut(s.log.String(), `msg="metrics and profiles" listen=`)
	at, _, found := strings.Cut(after, "\n")
	if !found {
		s.t.Fatalf("no address was logged:\n%s", s.log)
	}
	return at
}

// TestStrangersNamesReadNoMetrics asks both listeners as a browser does whose page has its
// own name lead to this machine, and as Prometheus does.
func TestStrangersNamesReadNoMetrics(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	names := []string{"--allow-host", "metrics.example.com,appview.tail1234.ts.net", "--public-url", "https://index.example.com/appview"}
	apart := serveIn(t, world, dir, append(names, "--metrics-listen", "127.0.0.1:0")...)
	together := serveIn(t, world, t.TempDir(), names...)
	paths := map[string]*serving{
		"http://" + apart.measuredAt() + "/metrics": apart, "http://" + apart.measuredAt() + "/debug/pprof/": apart,
		"http://" + apart.measuredAt() + "/debug/pprof/heap?debug=1": apart, "http://" + apart.measuredAt() + "/debug/pprof/cmdline": apart,
		together.url + "/metrics": together,
	}
	for url, s := range paths {
		key := strings.TrimSpace(read(t, filepath.Join(s.dir, service.KeyFile)))
		for host, status := range map[string]int{
			"evil.example": 421, "evil.example:9090": 421, "127.0.0.1.nip.io": 421, "localhost.evil.example": 421,
			"": 200, "localhost": 200, "appview:9090": 200, "appview.monitoring.svc": 200, "[::1]:9090": 200, // by its container's or Service's name
			"metrics.example.com:9090": 200, "appview.tail1234.ts.net": 200, "index.example.com": 200,
		} {
			if got, body := pageAs(t, url, host, ""); got != status || status == 421 && !strings.Contains(body, "--allow-host") {
				t.Errorf("%s as %q: %d, want %d: %.200s", url, host, got, status, body)
			}
		}
		for k, status := range map[string]int{key: 200, key + "x": 401} {
			if got, body := pageAs(t, url, "evil.example", k); got != status {
				t.Errorf("%s as a stranger with a key: %d, want %d: %.200s", url, got, status, body)
			}
		}
		s.log.wait(t, `msg="metrics refused"`)
	}
	if got, _ := pageAs(t, "http://"+apart.measuredAt()+"/admin/stats", "evil.example", ""); got != http.StatusNotFound {
		t.Errorf("what is not there, beside the metrics: %d", got)
	}
	for _, path := range []string{"/health", "/ready", "/openapi.json", "/", "/web/main.js"} {
		if got, _ := pageAs(t, together.url+path, "evil.example", ""); got != http.StatusOK {
			t.Errorf("%s as a stranger: %d", path, got)
		}
	}
	if got, _ := pageAs(t, service.UnixScheme+service.SocketOf(together.dir)+"//metrics", "evil.example", ""); got != http.StatusOK {
		t.Errorf("over the socket of the data directory: %d", got)
	}
	apart.end()
	together.end()

	path := filepath.Join(together.shortDir(), "m")
	s := serveIn(t, world, dir, "--metrics-listen", service.UnixScheme+path)
	for _, what := range []string{"/metrics", "/debug/pprof/"} {
		if got, _ := pageAs(t, service.UnixScheme+path+"/"+what, "evil.example", ""); got != http.StatusOK {
			t.Errorf("%s over a socket: %d", what, got)
		}
	}
	s.end()
}

// shortDir is a directory whose path leaves room for the name of a socket.
func (s *serving) shortDir() string {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "appview") // t.TempDir has the name of the test in its path
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestPagesOfAllowedOriginsMayAsk plays the preflight of a browser.
func TestPagesOfAllowedOriginsMayAsk(t *testing.T) {
	t.Parallel()
	s := serveIn(t, newWorld(t), t.TempDir(), "--cors-origin", "https://admin.example.com", "--cors-origin", "http://localhost:8080")
	for origin, allowed := range map[string]string{"https://admin.example.com": "https://admin.example.com", "http://localhost:8080": "http://localhost:8080", "https://evil.example": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.url+"/admin/backfill", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.Header.Set("Access-Control-Request-Headers", "authorization,idempotency-key")
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != allowed || (res.StatusCode == http.StatusNoContent) != (allowed != "") {
			t.Errorf("%s: %d %v", origin, res.StatusCode, res.Header)
		}
	}
	s.end()
}
