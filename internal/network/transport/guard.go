package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	keepAlive      = 30 * time.Second
	idleConn       = 60 * time.Second
	maxIdleConns   = 1024     // over all hosts
	maxHeaderBytes = 64 << 10 // of an answer
	pingIdle       = 15 * time.Second
	pingTimeout    = 15 * time.Second
	// maxUnread is what a host may send of a body over HTTP/2 before we read on, as when
	// the body waits for the budget. It is memory of ours, and no part of that.
	maxUnread = 128 << 10
)

// errNotPublic says that the guard refused to connect to an address.
var errNotPublic = errors.New("address is not public")

// guard opens connections, and only to addresses that may be reached. The check
// is made on the resolved address in the moment of connecting: a name that
// resolves to another one between look-up and dial gains nothing. The connections to
// one address are bounded in the same place (addresses.go), because only there the
// address is known. It knows every connection it opened, so that closing it ends
// them all.
type guard struct {
	allowPrivate bool
	timeout      time.Duration
	perAddress   int
	resolver     *net.Resolver // nil: the system's

	life context.Context //nolint:containedctx // the transport dials detached from any call; this ends its dials
	end  context.CancelFunc

	mu       sync.Mutex
	conns    map[*guardedConn]struct{}
	limiters map[netip.Addr]*addressLimiter
}

func newGuard(cfg Config) *guard {
	life, end := context.WithCancel(context.Background())
	return &guard{
		allowPrivate: cfg.AllowPrivate, timeout: cfg.Timing.Connect, perAddress: cfg.PerAddress, resolver: cfg.Resolver,
		life: life, end: end, conns: make(map[*guardedConn]struct{}), limiters: make(map[netip.Addr]*addressLimiter),
	}
}

// transport is the one way out. It follows no proxy variable and no redirect.
func (g *guard) transport(cfg Config) *http.Transport {
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            g.dial,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // inflaters do it
		TLSHandshakeTimeout:    cfg.Timing.TLS,
		ResponseHeaderTimeout:  cfg.Timing.Header,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    cfg.IdlePerHost,
		// Past it a dial could only wait for one of these to end.
		MaxConnsPerHost: cfg.PerAddress,
		IdleConnTimeout: idleConn,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: pingIdle, PingTimeout: pingTimeout, MaxReceiveBufferPerStream: maxUnread},
	}
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(g.life, cancel) //nolint:contextcheck // the guard's life ends a dial as well as the caller's
	defer stop()
	d := &dial{guard: g, host: address}
	dialer := net.Dialer{Timeout: g.timeout, KeepAlive: keepAlive, ControlContext: d.control, Resolver: g.resolver}
	conn, err := dialer.DialContext(ctx, network, address)
	at := d.end(conn)
	if err != nil {
		return nil, err
	}
	gc := &guardedConn{Conn: conn, guard: g, host: address, at: at}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life.Err() != nil || !connUseOf(ctx).offer(gc) {
		_ = conn.Close()
		g.release(at)
		return nil, net.ErrClosed
	}
	g.conns[gc] = struct{}{}
	if l := g.limiters[at]; l != nil {
		l.conns = append(l.conns, gc)
	}
	return gc, nil
}

// check reports whether an address may be connected to.
func (g *guard) check(_ context.Context, network, address string, _ syscall.RawConn) error {
	if g.allowPrivate {
		return nil
	}
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("connect over %s: %w", network, errNotPublic)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %q: %w: %w", address, errNotPublic, err)
	}
	if !isPublic(to.Addr()) || to.Port() != 443 && to.Port() != 80 {
		return fmt.Errorf("connect to %s: %w", address, errNotPublic)
	}
	return nil
}

// close ends every connection and every dial under way.
func (g *guard) close() {
	g.end()
	g.mu.Lock()
	open := make([]*guardedConn, 0, len(g.conns))
	for conn := range g.conns {
		open = append(open, conn)
	}
	g.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close() // nothing is left to be said on it
	}
}
