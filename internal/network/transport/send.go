package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"

	"appview/internal/network/polite"
)

const (
	// maxRefusal is as much as is read of an answer that is not 200.
	maxRefusal = 64 << 10
	// connTries is how often a request is sent whose connection we closed ourselves.
	connTries = 3
	// maxConns is how many connections one request may be tried on. The transport
	// tries again by itself when a host closes one in time, or goes away in the
	// words of HTTP/2, and a host that always does would be asked for ever.
	maxConns = 8
)

var (
	// errPaused ends a request that was about to be sent into a pause.
	errPaused = errors.New("host asked for a pause meanwhile")
	// errTooManyConns ends a request whose host closes every connection.
	errTooManyConns = fmt.Errorf("the host closed %d connections", maxConns)
)

// received is an answer's head with its body, as far as it could be read.
type received struct {
	status int
	header http.Header
	body   []byte         // of one that was read as it came only the beginning
	err    error          // that ended the body
	parked *polite.Parked // the host asks for a pause; then there is no body
	polite.Grant
}

// send sends one request and reads what comes. Its error means that no header came.
func (c *Client) send(ctx context.Context, permit *polite.Permit, q Request) (*received, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := c.cfg.Timing
	w := startWatchdog(t.Connect+t.TLS+t.Header, cancel, c.cfg.Now, t.BodyIdle, newMeter(ctx, t.BodyIdle))
	defer w.timer.Stop()
	ctx, use := c.guard.watchConns(ctx)
	defer use.end()
	conns := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// A connection can take seconds to come about. When the host has asked for
		// a pause meanwhile, closing the connection is what keeps the request in, but for
		// one that others are answered on: over HTTP/2 nothing is sent after a cancel.
		GetConn: func(string) {
			if conns++; conns > maxConns {
				cancel(errTooManyConns)
			}
			use.awaitConn()
		},
		GotConn: func(info httptrace.GotConnInfo) {
			use.gotConn(info.Conn)
			if permit.Paused() {
				cancel(errPaused)
				if !isShared(info.Conn) {
					_ = info.Conn.Close() // its request fails with it, as it should
				}
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(q.Host)+q.Target, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", q.accept())
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := c.transport.RoundTrip(req)
	for try := 1; err != nil && use.wasEvicted() && try < connTries; try++ {
		resp, err = c.transport.RoundTrip(req)
	}
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	c.inflaters.open(resp)
	defer func() { _ = resp.Body.Close() }() // whatever it says, the body has been judged
	limit := q.Limit
	if resp.StatusCode != http.StatusOK {
		limit = maxRefusal
	}
	r := &received{status: resp.StatusCode, header: resp.Header, Grant: q.Budget.Grant()}
	// From a refusal on nothing is sent: a host may take its time over the body, and
	// the caller may leave meanwhile.
	if r.parked = permit.Refused(resp); r.parked != nil {
		return r, nil
	}
	w.watchBody(&r.Grant)
	if q.Read != nil && resp.StatusCode == http.StatusOK {
		r.body, err = readStream(ctx, resp.Body, limit, &r.Grant, w, q.Read)
	} else {
		r.body, err = readBody(ctx, resp, limit, &r.Grant, w)
	}
	r.err = causeOf(ctx, err)
	return r, nil
}

// isShared reports whether a connection is one for several requests at a time.
func isShared(conn net.Conn) bool {
	over, ok := conn.(*tls.Conn)
	return ok && over.ConnectionState().NegotiatedProtocol == "h2"
}

// causeOf is what really ended a request: our watchdog and the gate act through the
// context, and the transport reports only that.
func causeOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errTooSlow) || errors.Is(cause, errPaused) || errors.Is(cause, errTooManyConns) {
		return cause
	}
	return err
}
