package network

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	"appview/network/outcome"
)

const (
	maxRedirects = 3
	// maxRefusal is as much as is read of an answer that is not 200.
	maxRefusal = 64 << 10
	// maxFailure is as much as is kept of the words of a failure to get any answer.
	maxFailure = 300
	// connTries is how often a request is sent whose connection we closed ourselves.
	connTries = 3
	// maxConns is how many connections one request may be tried on. The transport
	// tries again by itself when a host closes one in time, or goes away in the
	// words of HTTP/2, and a host that always does would be asked for ever.
	maxConns = 8
	// crowdedWait is the least that a host waits whose address has no room for it.
	crowdedWait = 2 * time.Second
)

// Operations, as errors name them, besides the XRPC methods.
const (
	opParseHost = "parse host"
	opLookup    = "look up did"
)

// call is one question to one host.
type call struct {
	op      string // names the question in errors
	host    Host
	target  string // path and query
	limit   int64  // bytes of the answer
	subject string // the repo, or whatever else tells one question from another to the breaker
	lane    lane   // the quota that it counts to
	accept  string // the media type that is wanted; typeJSON
	hops    int    // redirects that led here

	// read takes the body as it comes, instead of in one piece. Its errors are
	// *outcome.BadContent, *Parked, and those of what it was given.
	read func(io.Reader, memory) error
}

const typeJSON = "application/json"

// asksStatus reports whether the question is one for the revision and the status of a
// repo, which not every host answers.
func (q call) asksStatus() bool { return q.op == methodRepoStatus || q.op == methodLatestCommit }

// answer is a 200, read to its end. Its bytes count against the budget until release.
type answer struct {
	host Host // who gave it, after redirects
	body []byte
	grant
}

// fetch asks, follows redirects, and returns an answer with status 200 or an
// error. Every hop passes the rules for hosts, the gate and the guard anew.
func (c *Client) fetch(ctx context.Context, q call) (*answer, error) {
	for {
		a, next, err := c.exchange(ctx, q)
		if err != nil || next == "" {
			return a, err
		}
		if q.hops == maxRedirects {
			return nil, &Error{Op: q.op, Host: q.host, Reason: outcome.ReasonBadAnswer, Err: fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if q, err = c.redirect(q, next); err != nil {
			return nil, err
		}
	}
}

// redirect is the question that a redirect turns q into.
func (c *Client) redirect(q call, location string) (call, error) {
	bad := func(reason outcome.Reason, err error) (call, error) {
		return call{}, &Error{Op: q.op, Host: q.host, Reason: reason, Err: fmt.Errorf("redirect to %.200q: %w", location, err)}
	}
	base, err := url.Parse(string(q.host) + q.target)
	if err != nil {
		return bad(outcome.ReasonBadAnswer, err)
	}
	to, err := base.Parse(location)
	if err != nil {
		return bad(outcome.ReasonBadAnswer, err)
	}
	if base.Scheme == schemeHTTPS && to.Scheme != schemeHTTPS {
		return bad(outcome.ReasonRefusedAddress, errors.New("leaves https"))
	}
	origin := url.URL{Scheme: to.Scheme, User: to.User, Host: to.Host}
	host, err := c.ParseHost(origin.String())
	if e, ok := errors.AsType[*Error](err); ok {
		return bad(e.Reason, e.Err)
	}
	if host != q.host && (host == c.relay || host == c.plc) {
		// Every host could have its requests count to the rate at which these are asked.
		return bad(outcome.ReasonBadAnswer, errors.New("leads to the relay or the directory"))
	}
	q.host, q.target, q.hops = host, to.RequestURI(), q.hops+1
	return q, nil
}

// exchange is one request and its answer: the one place where anything is sent.
// It returns the answer, or where a redirect points, or an error.
func (c *Client) exchange(ctx context.Context, q call) (*answer, string, error) {
	now := c.cfg.Now
	g := c.gates.take(q.host, now())
	defer func() { c.gates.give(g, now()) }()
	let, err := g.enter(ctx, q, now)
	if err != nil {
		return nil, "", c.left(ctx, q, err)
	}
	defer g.leave()
	look, err := c.outage.admit(q.host, now())
	if err != nil {
		let.abandon()
		return nil, "", err
	}
	era, _ := c.jumps.look()
	settled := false
	defer func() {
		if !settled { // the caller left, or we refused: nothing was learned
			let.abandon()
			c.outage.abandon(look)
		}
	}()

	began := now()
	resp, err := c.send(ctx, g, q)
	c.observe(ctx, q.host, resp, err, now().Sub(began))
	if err != nil {
		blame, fail := c.broken(ctx, g, q, err)
		if !blame {
			return nil, "", fail
		}
		settled = true
		if p := c.outage.failure(ctx, attempt{q.host, began, look, c.jumps.since(era), err}, now); p != nil {
			let.abandon()
			return nil, "", p
		}
		let.failure(now(), q.subject, fail)
		return nil, "", fail
	}
	settled = true
	c.outage.answered(ctx, q.host, now())
	a, next, alive, err := c.judge(ctx, g, q, resp)
	switch {
	case alive:
		let.alive()
	case ctx.Err() != nil:
		let.abandon()
	case transient(err):
		if p := c.outage.failure(ctx, attempt{q.host, began, false, c.jumps.since(era), err}, now); p != nil {
			let.abandon()
			return nil, "", p
		}
		fallthrough
	default:
		let.failure(now(), q.subject, err)
	}
	return a, next, err
}

// transient tells whether an answer began well and did not come to its end.
func transient(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Reason == outcome.ReasonCutBody || e.Reason == outcome.ReasonTimeout)
}

// left is the error of a call that ended before anything was sent.
func (c *Client) left(ctx context.Context, q call, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s at %s: %w", q.op, q.host, ctx.Err())
	}
	return err
}

// received is an answer's head with its body, as far as it could be read.
type received struct {
	status int
	header http.Header
	body   []byte  // of one that was read as it came only the beginning
	err    error   // that ended the body
	parked *Parked // the host asks for a pause; then there is no body
	grant
}

// send sends one request and reads what comes. Its error means that no header came.
func (c *Client) send(ctx context.Context, g *gate, q call) (*received, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := c.cfg.Timing
	w := watch(t.Connect+t.TLS+t.Header, cancel, c.cfg.Now, t.BodyIdle, newMeter(ctx, t.BodyIdle))
	defer w.timer.Stop()
	ctx, using := c.guard.use(ctx)
	defer using.end()
	conns := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// A connection can take seconds to come about. When the host has asked for
		// silence meanwhile, closing the connection is what keeps the request in, but for
		// one that others are answered on: over HTTP/2 nothing is sent after a cancel.
		GetConn: func(string) {
			if conns++; conns > maxConns {
				cancel(errRestless)
			}
			using.ask()
		},
		GotConn: func(info httptrace.GotConnInfo) {
			using.begin(info.Conn)
			if g.silent(q.lane, c.cfg.Now()) {
				cancel(errSilenced)
				if !shared(info.Conn) {
					_ = info.Conn.Close() // its request fails with it, as it should
				}
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(q.host)+q.target, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", cmp.Or(q.accept, typeJSON))
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := c.transport.RoundTrip(req)
	for try := 1; err != nil && using.gaveWay() && try < connTries; try++ {
		resp, err = c.transport.RoundTrip(req)
	}
	if err != nil {
		return nil, because(ctx, err)
	}
	c.inflaters.open(resp)
	defer func() { _ = resp.Body.Close() }() // whatever it says, the body has been judged
	limit := q.limit
	if resp.StatusCode != http.StatusOK {
		limit = maxRefusal
	}
	r := &received{status: resp.StatusCode, header: resp.Header, grant: grant{b: c.budget}}
	if q.read != nil {
		r.b = c.repos
	}
	if pause := readPause(resp.Header, c.cfg.Now()); refuses(resp, pause) {
		// From here on nothing is sent: a host may take its time over the body, and
		// the caller may leave meanwhile.
		r.parked = g.refusedWith(resp.StatusCode, c.cfg.Now(), pause, c.cfg.Timing.Pause)
		return r, nil
	}
	w.body(&r.grant)
	if q.read != nil && resp.StatusCode == http.StatusOK {
		r.body, err = readStream(ctx, resp.Body, limit, &r.grant, w, q.read)
	} else {
		r.body, err = readBody(ctx, resp, limit, &r.grant, w)
	}
	r.err = because(ctx, err)
	return r, nil
}

// shared tells whether a connection is one for several requests at a time.
func shared(conn net.Conn) bool {
	over, ok := conn.(*tls.Conn)
	return ok && over.ConnectionState().NegotiatedProtocol == "h2"
}

var (
	// errSilenced ends a request that was about to be sent into a pause.
	errSilenced = errors.New("host asked for silence meanwhile")
	// errRestless ends a request that no connection was good enough for.
	errRestless = fmt.Errorf("the host closed %d connections", maxConns)
)

// because names what really ended a request: our watchdog and our gate act
// through the context, and the transport reports only that.
func because(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errTooSlow) || errors.Is(cause, errSilenced) || errors.Is(cause, errRestless) {
		return cause
	}
	return err
}

// broken turns the failure to get any answer into the call's error, and tells
// whether the host, or the way to it, is to blame.
func (c *Client) broken(ctx context.Context, g *gate, q call, err error) (blame bool, fail error) {
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s at %s: %w", q.op, q.host, ctx.Err())
	}
	if c.guard.life.Err() != nil {
		return false, fmt.Errorf("%s at %s: %w", q.op, q.host, context.Canceled)
	}
	if errors.Is(err, errSilenced) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return false, &Parked{Host: q.host, Until: g.pause(q.lane), Why: WhyRateLimited, Answer: g.asksFor(q.lane)}
	}
	if errors.Is(err, errCrowded) {
		wait := crowdedWait + rand.N(crowdedWait)
		return false, &Parked{Host: q.host, Until: c.cfg.Now().Add(wait), Why: WhyPaced}
	}
	reason := brokenReason(err)
	if text := err.Error(); reason == outcome.ReasonTLS || len(text) > maxFailure {
		// It would keep the certificates, or what came in place of an answer, of any
		// size, for as long as the breaker remembers the failure.
		err = fmt.Errorf("%.*s", maxFailure, text)
	}
	return reason != outcome.ReasonRefusedAddress, &Error{Op: q.op, Host: q.host, Reason: reason, Err: err}
}

// judge decides what an answer means. It tells whether the host itself gave it:
// a proxy that answers for a dead host is not the host.
func (c *Client) judge(ctx context.Context, g *gate, q call, r *received) (a *answer, next string, alive bool, err error) {
	now := c.cfg.Now()
	fail := func(reason outcome.Reason, cause error) *Error {
		return &Error{Op: q.op, Host: q.host, Reason: reason, Status: r.status, Err: cause}
	}
	if ctx.Err() != nil {
		r.release()
		return nil, "", false, fmt.Errorf("%s at %s: %w", q.op, q.host, ctx.Err())
	}
	if r.parked != nil {
		c.cfg.Log.DebugContext(ctx, "host asks for a pause", "host", q.host, "until", r.parked.Until)
		return nil, "", true, r.parked
	}
	g.answered(q.lane, now, readQuota(r.header, now))
	if r.status != http.StatusOK {
		r.release()
		if next := r.header.Get("Location"); next != "" && redirects(r.status) {
			return nil, next, true, nil
		}
		e, alive := refusal(q, r)
		if alive && q.asksStatus() && e.absent() {
			alive = !g.answersNobody()
		}
		return nil, "", alive, e
	}
	switch {
	case errors.Is(r.err, errTooLarge):
		r.release()
		return nil, "", true, fail(outcome.ReasonTooLarge, fmt.Errorf("more than %d bytes: %w", q.limit, r.err))
	case isHTML(r.header, r.body) && (r.err == nil) == (q.read == nil):
		r.release()
		return nil, "", false, fail(outcome.ReasonBadAnswer, errors.New("html instead of "+cmp.Or(q.accept, typeJSON)))
	}
	if parked, ok := errors.AsType[*Parked](r.err); ok {
		r.release()
		return nil, "", true, parked
	}
	body := withoutMark(r.body)
	if bad, ok := errors.AsType[*outcome.BadContent](r.err); namesError(q, body) && (r.err == nil || ok) {
		r.release()
		e, alive := refusal(q, r)
		return nil, "", alive, e
	} else if ok {
		r.release()
		return nil, "", true, fail(bad.Reason, bad.Err)
	}
	if r.err != nil {
		r.release()
		return nil, "", false, fail(bodyReason(r.err), r.err)
	}
	return &answer{host: q.host, body: body, grant: r.grant}, "", true, nil
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	default:
		return false
	}
}

// refuses tells whether an answer asks us to come back later: 429, or a 503 that
// says when. A 503 that does not is a broken host.
func refuses(resp *http.Response, pause time.Duration) bool {
	return resp.StatusCode == http.StatusTooManyRequests ||
		resp.StatusCode == http.StatusServiceUnavailable && pause > 0 && resp.Header.Get("Retry-After") != ""
}
