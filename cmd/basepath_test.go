package cmd

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/sandbox"
)

func TestCommandsFindAServerBehindAPath(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir, "--base-path", "/deep/appview/")
	root, isBelow := strings.CutSuffix(s.url, "/deep/appview")
	if !isBelow {
		t.Fatalf("server.url holds %s", s.url)
	}
	s.log.wait(t, "url="+s.url)
	for _, at := range [][]string{
		nil, {"--url", s.url}, {"--url", s.url + "/"}, {"--url", s.url + "//"}, {"--url", strings.Replace(s.url, "appview", "%61ppview", 1)},
	} {
		at = append(at, "--data-dir", dir)
		want(t, exitOK, "completed", nil, append([]string{"backfill", "create", "--collection", sandbox.StatusCollection.String(), "--watch"}, at...)...)
		want(t, exitOK, sandbox.StatusCollection.String(), nil, append([]string{"stats"}, at...)...)
		want(t, exitOK, sandbox.StatusCollection.String(), nil, append([]string{"records", "export", "--collection", sandbox.StatusCollection.String()}, at...)...)
		want(t, exitOK, "", nil, append([]string{"backup", filepath.Join(t.TempDir(), "copy.db")}, at...)...)
	}
	want(t, exitError, "everything is below /deep/appview/ here", nil, "stats", "--url", root, "--data-dir", dir)
	want(t, exitError, "there is no route /appview/admin/stats", nil, "stats", "--url", s.url+"/appview", "--data-dir", dir)
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.log)
	}
}

func TestCommandsFindAServerBehindAPathOverItsSocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("addresses of sockets are Unix paths here")
	}
	world, dir := newWorld(t), t.TempDir()
	at := "unix:" + filepath.Join(t.TempDir(), "http.sock")
	s := serveIn(t, world, dir, "--listen", at, "--base-path", "/appview")
	if s.url != at {
		t.Errorf("server.url holds %s", s.url)
	}
	want(t, exitOK, `"file_bytes"`, nil, "stats", "--json", "--url", at, "--key", strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile))))
	want(t, exitOK, `"file_bytes"`, nil, "stats", "--json", "--data-dir", dir)
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.log)
	}
}

func TestBasePathIsCheckedBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	for path, why := range map[string]string{
		"appview": "does not begin with a slash", "/a/../b": "leads elsewhere", "/a?b": "may hold letters", "/a%2Fb": "no %-escapes", "/admin/": "is the beginning of the route /admin/",
	} {
		dir := filepath.Join(t.TempDir(), "data")
		want(t, exitUsage, "--base-path: ", nil, "serve", "--data-dir", dir, "--base-path", path)
		want(t, exitUsage, why, []string{"APPVIEW_BASE_PATH=" + path}, "serve", "--data-dir", dir)
		if there, err := filepath.Glob(dir); err != nil || there != nil {
			t.Errorf("%q: %v is there, %v", path, there, err)
		}
	}
}

func TestProbesOfAServerBehindAPathNeedNoPath(t *testing.T) {
	t.Parallel()
	s := serveIn(t, newWorld(t), t.TempDir(), "--base-path", "/appview")
	root := strings.TrimSuffix(s.url, "/appview")
	for path, status := range map[string]int{
		"/health": 200, "/ready": 200, "/metrics": 200, "/appview/health": 200, "/appview/metrics": 200, "/openapi.json": 404, "/": 404,
	} {
		if code, body := page(t, root+path); code != status {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	s.end()
}
