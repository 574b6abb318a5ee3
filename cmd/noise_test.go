package cmd

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHostsCannotWriteToTheLog has a host that sends more answers than it was
// asked for, which makes libraries print what it said.
func TestHostsCannotWriteToTheLog(t *testing.T) {
	t.Parallel()
	const did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	var answers atomic.Int32
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answers.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go linger(conn, `{"error":"InvalidRequest","message":"no"}`)
	}))
	t.Cleanup(host.Close)
	plc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"id":%q,"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`, did, host.URL)
	}))
	t.Cleanup(plc.Close)
	dir := t.TempDir()
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", plc.URL, "--plc", plc.URL, "--allow-private-hosts", "--host-rps", "1000")
	c.log.wait(t, "msg=serving")
	for range 5 {
		want(t, exitOK, "", nil, "backfill", "create", "--data-dir", dir, "--did", did, "--watch")
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
	if answers.Load() < 5 {
		t.Fatalf("%d answers", answers.Load())
	}
	for line := range strings.Lines(c.log.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("not of our log: %s", line)
		}
	}
}

// linger answers twice, and keeps the connection open until the other side has seen it.
func linger(conn net.Conn, body string) {
	defer conn.Close() //nolint:errcheck // the client decides how this ends
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answer := fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_, _ = io.WriteString(conn, answer+answer)
	_, _ = io.Copy(io.Discard, conn)
}
