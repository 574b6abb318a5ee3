package cmd

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"appview/sandbox"
)

// page is what a URL answers without a key.
func page(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
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
	_, after, _ := strings.Cut(s.log.String(), `msg="metrics and profiles" listen=`)
	at, _, found := strings.Cut(after, "\n")
	if !found {
		t.Fatalf("no address was logged:\n%s", s.log)
	}
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
