package network

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network/outcome"
	"appview/network/repo/repotest"
)

const (
	alice   = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	testRev = "3kgk4qs6aa22a"
	status  = syntax.NSID("xyz.statusphere.status")
)

// TestMain fails when the tests are over and something of ours still runs.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // where net/http complains of hosts
	code := m.Run()
	if code == 0 {
		if left := goroutinesLeft(5 * time.Second); left != "" {
			_, _ = os.Stderr.WriteString("goroutines left:\n" + left)
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // the only way to fail from here
}

// goroutinesLeft waits for goroutines that are on their way out.
func goroutinesLeft(patience time.Duration) string {
	end := time.Now().Add(patience)
	for {
		buf := make([]byte, 1<<20)
		var left []string
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "appview/network") && !strings.Contains(stack, "goroutinesLeft") ||
				strings.Contains(stack, "net/http.(*persistConn)") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
		runtime.Gosched()
	}
}

// newClient makes a client that may talk to loopback, quickly.
func newClient(tb testing.TB, cfg Config) *Client {
	tb.Helper()
	cfg.AllowPrivate = true
	orDefault(&cfg.Relay, "http://127.0.0.1:1")
	orDefault(&cfg.PLC, "http://127.0.0.1:1")
	orDefault(&cfg.HostRPS, 100_000)
	orDefault(&cfg.RelayRPS, 100_000)
	orDefault(&cfg.PLCRPS, 100_000)
	c, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// serve starts a host that ends with the test.
func serve(tb testing.TB, h http.HandlerFunc) Host {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ReadTimeout, s.Config.WriteTimeout = time.Minute, time.Minute
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return Host(s.URL)
}

// listen opens a port.
func listen(tb testing.TB, address string) (net.Listener, error) {
	tb.Helper()
	var cfg net.ListenConfig
	return cfg.Listen(tb.Context(), "tcp", address)
}

// says answers every request the same.
func says(code int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func page(tb testing.TB, c *Client, host Host) (RecordsPage, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	p, err := c.ListRecords(ctx, host, alice, status, "")
	p.grant.release()
	return p, err
}

func wantReason(tb testing.TB, err error, want outcome.Reason) {
	tb.Helper()
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != want {
		tb.Fatalf("got %v, want reason %s", err, want)
	}
}

func reasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return string(e.Reason)
	}
	if p, ok := errors.AsType[*Parked](err); ok {
		return "parked: " + p.Why
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// identOf is an account whose repos a maker makes.
func identOf(m *repotest.Maker) Identity {
	return Identity{DID: alice, key: signingKey{found: true, suite: suiteMultikey, text: m.PublicKey().Multibase()}}
}

// serveCAR serves a body as a repo.
func serveCAR(tb testing.TB, body string) Host {
	tb.Helper()
	return serve(tb, says(http.StatusOK, typeCAR, body))
}

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }
