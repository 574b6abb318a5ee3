package network

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
)

const (
	alice   = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	testRev = "3kgk4qs6aa22a"
	status  = syntax.NSID("xyz.statusphere.status")
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// What it takes to have a host set aside, or to believe that our own network is gone.
const (
	breakerTrips = 5
	outageHosts  = 3
)

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

func page(tb testing.TB, c *Client, host Host) (RecordsPage, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	p, err := c.ListRecords(ctx, host, alice, status, "")
	p.grant.Release()
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
	return hosttest.Serve(tb, hosttest.Says(http.StatusOK, typeCAR, body))
}

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }
