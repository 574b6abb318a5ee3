package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// socketHeader is how long the answer to an upgrade may take.
const socketHeader = 10 * time.Second

// Sockets is a client for websockets: HTTP/1.1 over the guard, without redirects, cookies
// or a bound on how long a connection stays. No gate is asked: whoever dials spaces
// its attempts. A socket takes a slot of its address until it is closed, and is never
// closed for somebody else.
func (c *Client) Sockets() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            c.guard.dialSocket,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			TLSHandshakeTimeout:    c.cfg.Timing.TLS,
			ResponseHeaderTimeout:  socketHeader,
			MaxResponseHeaderBytes: maxHeaderBytes,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dialSocket opens a connection that counts as used until it is closed.
func (g *guard) dialSocket(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if gc, ok := conn.(*guardedConn); ok {
		g.mu.Lock()
		gc.users++
		g.mu.Unlock()
	}
	return conn, nil
}
