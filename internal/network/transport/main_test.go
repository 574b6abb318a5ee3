package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/record"
)

const (
	alice       = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	listRecords = "com.atproto.repo.listRecords"
	// maxPage is as much as is read of an answer.
	maxPage = 32 << 20
	// goodPage is an answer.
	goodPage = `{"records":[],"cursor":"c"}`
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// limits are what a test may set of politeness.
type limits struct {
	PerHost  int
	Services []polite.Host
}

// newClient makes a client that may talk to loopback, quickly.
func newClient(tb testing.TB, cfg Config, l limits) *Client {
	tb.Helper()
	cfg.AllowPrivate = true
	return newGuardedClient(tb, cfg, l)
}

// newGuardedClient makes a client that may talk to public addresses only.
func newGuardedClient(tb testing.TB, cfg Config, l limits) *Client {
	tb.Helper()
	orDefault(&cfg.PerAddress, 32)
	orDefault(&cfg.IdlePerHost, 128)
	orDefault(&cfg.UserAgent, "test/0")
	orDefault(&cfg.Timing.Connect, 10*time.Second)
	orDefault(&cfg.Timing.TLS, 10*time.Second)
	orDefault(&cfg.Timing.Header, 30*time.Second)
	orDefault(&cfg.Timing.BodyIdle, 30*time.Second)
	orDefault(&l.PerHost, 8)
	cfg.Now, cfg.Log, cfg.Services = time.Now, slog.New(slog.DiscardHandler), l.Services
	var c *Client
	cfg.Gates = polite.New(polite.Config{
		Limits: func(polite.Host) (float64, int) { return 100_000, l.PerHost }, Pause: 30 * time.Second,
		Probe: 10 * time.Second, MaxProbe: time.Minute, OutageProbe: 15 * time.Second, Services: l.Services,
		Reach: func(ctx context.Context, host polite.Host) bool { return c.Reach(ctx, host) }, Log: cfg.Log, Now: cfg.Now,
	})
	c = New(cfg)
	tb.Cleanup(c.Close)
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// listing asks a host for a page of records of a repo.
func listing(host polite.Host, repo string) Request {
	return Request{
		Question: polite.Question{Op: listRecords, Host: host, Subject: repo}, Target: "/xrpc/" + listRecords, Limit: maxPage,
		Budget: polite.NewBudget(40<<20, maxPage),
	}
}

// listed is what a page of records says.
type listed struct {
	Records int
	Cursor  string
}

// page asks for a page of records and reads it strictly.
func page(tb testing.TB, c *Client, host polite.Host) (listed, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	return pageOf(ctx, c, host, alice)
}

func pageOf(ctx context.Context, c *Client, host polite.Host, repo string) (p listed, err error) {
	a, err := c.Fetch(ctx, listing(host, repo))
	if err != nil {
		return p, err
	}
	defer a.Release()
	err = record.ScanObject(a.Body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "cursor":
			p.Cursor, err = s.Text()
			return err
		case "records":
			return s.Array(func() error { p.Records++; return s.Skip() })
		default:
			return s.Skip()
		}
	})
	if err != nil {
		return p, &Error{Op: listRecords, Host: a.Host, Reason: outcome.ReasonBadAnswer, Status: http.StatusOK, Err: err}
	}
	return p, nil
}

// pause has a host ask for a minute's pause, as if another request had just heard it.
func pause(ctx context.Context, tb testing.TB, c *Client, host polite.Host) {
	tb.Helper()
	permit, err := c.cfg.Gates.Acquire(ctx, polite.Question{Host: host, Op: "pause"})
	if err != nil {
		tb.Error(err)
		return
	}
	defer permit.Release()
	_ = permit.Refused(&http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}})
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
	if p, ok := errors.AsType[*polite.Parked](err); ok {
		return "parked: " + p.Why
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// did is one of many repos.
func did(i int) string { return fmt.Sprintf("did:plc:%024d", i) }
