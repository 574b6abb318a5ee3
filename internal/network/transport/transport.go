// Package transport sends one request to a host, safely: only to addresses that are public,
// with bounds on connections, time, size and memory, and classifies what comes. When it is
// sent, package polite says. It never retries.
package transport

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"appview/internal/network/polite"
)

// Config is how requests are sent. All of it must be set, but for what may be nil.
type Config struct {
	AllowPrivate bool          // private and loopback addresses, any port, plain http
	PerAddress   int           // connections to one remote address, over all names
	IdlePerHost  int           // connections to one host that wait for the next request
	UserAgent    string        // of every request
	Timing       Timing        // of every request
	Resolver     *net.Resolver // of host names; nil: the system's
	Gates        *polite.Gates // that every request passes
	Services     []polite.Host // no host may redirect to these: their rate is for what we ask ourselves
	Log          *slog.Logger
	Now          func() time.Time

	// Observe is told of every request that was sent: its host, its status, 0 without an
	// answer, and the time until the answer was read. It must not wait for anything. nil:
	// nobody is told.
	Observe func(host polite.Host, status int, took time.Duration)
	// RefusesAll reports whether a host refuses so many accounts that a refusal without a
	// word does not show that it is there. nil: no host does.
	RefusesAll func(polite.Host) bool
}

// Timing bounds the parts of a request.
type Timing struct {
	Connect  time.Duration // name resolution and connection
	TLS      time.Duration // handshake
	Header   time.Duration // until the answer's header is complete
	BodyIdle time.Duration // without a byte of the body
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	cfg       Config
	guard     *guard
	transport *http.Transport
	inflaters inflaters
}

// New makes a client. It sends nothing.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, guard: newGuard(cfg)}
	c.transport = c.guard.transport(cfg)
	return c
}

// Close ends every connection, and with it every request still under way.
func (c *Client) Close() {
	c.guard.close()
	c.transport.CloseIdleConnections()
}

// Reach opens a connection to host and closes it again.
func (c *Client) Reach(ctx context.Context, host polite.Host) bool {
	u, err := url.Parse(string(host))
	if err != nil {
		return false
	}
	port := u.Port()
	if port == "" {
		port = portHTTPS
		if u.Scheme == schemeHTTP {
			port = portHTTP
		}
	}
	// Where there is no room for one more connection, there is no telling: those that
	// are open may stand still, and if they do not, somebody is answered soon.
	conn, err := c.guard.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return false
	}
	_ = conn.Close() // it has said all it was asked
	return true
}
