package cmd

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
)

// manager is the socket of a service manager.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T, socket string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{t, conn}
}

// told is what the manager is told next, before so long.
func (m *manager) told(within time.Duration) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := m.conn.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

// TestServiceManagerIsToldWhenRequestsAreAnswered starts and ends the server as systemd
// does, over a socket with a path and an abstract one.
func TestServiceManagerIsToldWhenRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@appview-test-%d-%d", os.Getpid(), time.Now().UnixNano()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, world, dir := newManager(t, socket), newWorld(t), t.TempDir()
			c := startChild(t, []string{service.EnvNotify + "=" + socket}, sandboxed(world, dir)...)
			if got := m.told(patience); got != "READY=1" {
				t.Fatalf("told %q, printed:\n%s", got, c.log)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile)))+"/ready", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req) //nolint:forbidigo // one request of a test
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("when it is ready: %s, %v", res.Status, err)
			}
			c.terminate(exitOK)
			if got := m.told(patience); got != "STOPPING=1" {
				t.Errorf("at the end told %q", got)
			}
			if got := m.told(time.Millisecond); got != "" {
				t.Errorf("told %q as well", got)
			}
		})
	}
}

// TestServiceManagerIsNotToldTooEarly has the first commit of the start stall.
func TestServiceManagerIsNotToldTooEarly(t *testing.T) {
	t.Parallel()
	socket, file := filepath.Join(t.TempDir(), "notify"), filepath.Join(t.TempDir(), "stall")
	m, world, dir := newManager(t, socket), newWorld(t), t.TempDir()
	write(t, file, "")
	c := startChild(t, []string{service.EnvNotify + "=" + socket, stall + "=" + file}, sandboxed(world, dir)...)
	killStalled(t, c, file)
	if got := m.told(time.Millisecond); got != "" {
		t.Errorf("told %q before anything was answered:\n%s", got, c.log)
	}
}

// TestServerRunsWithoutAServiceManager has the socket lead nowhere.
func TestServerRunsWithoutAServiceManager(t *testing.T) {
	t.Parallel()
	for name, socket := range map[string]string{
		"nobody listens": filepath.Join(t.TempDir(), "nobody"), "of another kind": "vsock:2:9999", "too long": "/" + strings.Repeat("x", 200),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChild(t, []string{service.EnvNotify + "=" + socket}, sandboxed(newWorld(t), t.TempDir())...)
			c.log.wait(t, "the service manager could not be told")
			c.terminate(exitOK)
			if log := c.log.String(); strings.Count(log, `state="READY=1"`) != 1 || strings.Count(log, `state="STOPPING=1"`) != 1 {
				t.Errorf("printed:\n%s", log)
			}
		})
	}
}
