package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Part names a kind of server.
type Part string

// The parts of a world.
const (
	PartRelay Part = "relay"
	PartPLC   Part = "plc"
	PartPDS   Part = "pds"
)

// Every server has a bound in time and memory.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 3 * time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// maxPooledBuffer is how large a buffer may be that is kept for the next answer.
const maxPooledBuffer = 256 << 10

// part is one server: its listener, its endpoints, and what was seen of it.
type part struct {
	kind      Part
	url       string
	world     *World
	listener  net.Listener
	server    *http.Server
	endpoints map[string]endpoint
	handlers  map[string]http.Handler     // by path, ahead of all else; fixed when the world runs
	gate      func(method string) *answer // answers in place of the endpoints; nil: never
	limit     *rateLimit                  // nil: none

	counts   map[string]*atomic.Int64 // by method; fixed
	inFlight atomic.Int64
	highest  atomic.Int64
	buffers  sync.Pool
}

func (w *World) newPart(kind Part, number int, endpoints map[string]endpoint) (*part, error) {
	ln, err := listen(number)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, err)
	}
	p := &part{
		kind: kind, url: "http://" + ln.Addr().String(), world: w, listener: ln,
		endpoints: endpoints, handlers: make(map[string]http.Handler), counts: map[string]*atomic.Int64{MethodOther: new(atomic.Int64)},
	}
	for method := range endpoints {
		p.counts[method] = new(atomic.Int64)
	}
	return p, nil
}

// run serves until ctx ends and every connection's goroutine has ended.
func (p *part) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var conns sync.WaitGroup
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(io.Discard, "", 0), // cut connections are on purpose
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			default:
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(p.listener) }()
	var err, closeErr error
	select {
	case <-ctx.Done():
		closeErr = p.server.Close()
		err = <-served
	case err = <-served:
		cancel() // requests that wait for something hear it
		closeErr = p.server.Close()
	}
	conns.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if errors.Is(closeErr, net.ErrClosed) {
		closeErr = nil // Close of the world came first
	}
	if err = errors.Join(err, closeErr); err != nil {
		return fmt.Errorf("serve %s at %s: %w", p.kind, p.url, err)
	}
	return nil
}

func (p *part) close() error {
	if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close %s at %s: %w", p.kind, p.url, err)
	}
	return nil
}

// ServeHTTP answers one request: it asks the fault hook, and else the endpoint,
// and writes the log before it sends, so that a client which has its answer
// finds the request in the log.
func (p *part) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := p.handlers[r.URL.Path]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	q := r.URL.Query()
	req := p.describe(r, q)
	req.Number = p.world.watch.arrived.Add(1)
	p.enter(req.Method)
	defer p.inFlight.Add(-1)

	f := p.world.faultFor(req)
	req.Fault = f.isSet()
	a := answer{drop: true} // the client waits no longer, or is to get nothing
	if f.hold(r.Context()) {
		buf := p.buffer()
		defer p.keep(buf)
		a = p.answer(r, f, query{values: q, req: req, buf: buf})
	}
	req.Ended = time.Now()
	if !a.drop {
		req.Status, req.Bytes = a.status, len(a.body)
		if f.cuts(a) {
			req.Bytes = max(0, f.CutAfter)
		}
	}
	p.world.watch.add(req)
	if f.streams() && !a.drop {
		f.stream(r.Context(), w, a)
		return
	}
	a.send(w, req.Bytes)
}

// answer is what the client is to get, faults included.
func (p *part) answer(r *http.Request, f Fault, q query) answer {
	if f.Status != 0 {
		return f.rewrite(f.answer())
	}
	return f.rewrite(p.soundAnswer(r, q))
}

// soundAnswer is what the part says without a fault.
func (p *part) soundAnswer(r *http.Request, q query) answer {
	if p.gate != nil {
		if a := p.gate(q.req.Method); a != nil {
			return *a
		}
	}
	e, ok := p.endpoints[q.req.Method]
	switch {
	case !ok && p.kind == PartPLC:
		return plcError(http.StatusNotFound, "Not Found")
	case !ok && !strings.HasPrefix(r.URL.Path, xrpcPrefix):
		return answer{status: http.StatusNotFound, contentType: contentText, body: []byte("Not Found")}
	case !ok:
		return fail(http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return fail(http.StatusBadRequest, "InvalidRequest", "Incorrect HTTP method ("+r.Method+") expected GET")
	}
	var header http.Header
	if p.limit != nil {
		var allowed bool
		if header, allowed = p.limit.take(q.req.Method, time.Now()); !allowed {
			a := fail(http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded")
			a.header = header
			return a
		}
	}
	a := e(q)
	if a.header == nil {
		a.header = header
	}
	return a
}

func (p *part) enter(method string) {
	count, ok := p.counts[method]
	if !ok {
		count = p.counts[MethodOther]
	}
	count.Add(1)
	now := p.inFlight.Add(1)
	for {
		high := p.highest.Load()
		if now <= high || p.highest.CompareAndSwap(high, now) {
			return
		}
	}
}

func (p *part) buffer() *[]byte {
	if buf, ok := p.buffers.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

func (p *part) keep(buf *[]byte) {
	if cap(*buf) <= maxPooledBuffer {
		p.buffers.Put(buf)
	}
}

// describe puts what a request is about into a Request.
func (p *part) describe(r *http.Request, q url.Values) Request {
	req := Request{
		Started: time.Now(), Part: p.kind, Host: p.url,
		Collection: syntax.NSID(q.Get("collection")), RKey: q.Get("rkey"), Cursor: q.Get("cursor"), DID: q.Get("did"),
	}
	if req.DID == "" {
		req.DID = q.Get("repo")
	}
	if s := q.Get("limit"); s != "" {
		if n, err := strconv.Atoi(s); err == nil {
			req.Limit = n
		}
	}
	if method, ok := strings.CutPrefix(r.URL.Path, xrpcPrefix); ok {
		req.Method = method
		return req
	}
	req.Method = strings.TrimPrefix(r.URL.Path, "/")
	if p.kind == PartPLC && strings.HasPrefix(req.Method, "did:") {
		req.Method, req.DID = MethodDID, req.Method
	}
	return req
}
