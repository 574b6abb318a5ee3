//go:build unix

package cmd

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
)

// TestManyIdleConnectionsKeepNobodyOut has 1,500 clients that say nothing, on a machine
// that lets the server have 1,024 files open.
func TestManyIdleConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const idle, files = 1500, "1024"
	if n, known := maxOpenFiles(); known && n < 2*idle {
		t.Skipf("this process may have %d files open, %d are needed", n, 2*idle)
	}
	dir := t.TempDir()
	c := startChildIn(t, "ulimit -n "+files, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", nobody, "--plc", nobody, "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	url := strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile)))
	for range idle {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	for _, path := range []string{"/health", "/ready", "/admin/stats"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile))))
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Error(err)
		} else if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d, %v", path, res.StatusCode, err)
		}
		cancel()
	}
	c.log.wait(t, "as many connections as may be are open")
	if open, err := os.ReadDir("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/fd"); err == nil && len(open) > 320 {
		t.Errorf("the server has %d files open", len(open))
	}
	c.terminate(exitOK)
}

// TestConnectionsToTheSocketAreBounded has a loop of this machine's open the socket of the
// data directory again and again: commands still get in, and descriptors stay free.
func TestConnectionsToTheSocketAreBounded(t *testing.T) {
	t.Parallel()
	s := serveIn(t, newWorld(t), t.TempDir())
	for range 3 * service.MaxLocalConnections {
		conn, err := service.DialLocal(t.Context(), s.dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", s.dir)
	if log := s.log.String(); !strings.Contains(log, "as many connections as may be are open") || !strings.Contains(log, service.SocketFile) {
		t.Errorf("log: %s", log)
	}
	if status, _ := page(t, s.url+"/health"); status != http.StatusOK { // no client has made room for that
		t.Errorf("/health: %d", status)
	}
}
