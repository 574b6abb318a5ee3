package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"appview/server/answer"
)

const (
	// freshFor is how long a connection may take over its first bytes, or over its header,
	// without giving way before slow answers: its header is on the way.
	freshFor = 200 * time.Millisecond
	// connLogEvery is how often the log says that connections give way, or are not accepted.
	connLogEvery = 10 * time.Second
)

// Connections is a listener whose connections are bounded. At the bound a new one gets
// in and another gives way: first one that has sent a wrong key, then one that is idle,
// then one that still sends its header, then the one that takes its answer slowest. Of
// several such it is one of the address that has most. There is no bound for each
// address, since all the clients behind a proxy have one.
type Connections struct {
	net.Listener

	bound int
	epoch time.Time // that moments are counted from
	log   *slog.Logger
	errs  *rate.Limiter // of the log
	fulls *rate.Limiter // of the log

	mu      sync.Mutex
	open    map[*clientConn]struct{}
	sources map[netip.Addr]*source
	gone    uint64 // that have given way
}

// source counts the connections of an address.
type source struct {
	addr  netip.Addr
	conns int
}

// clientConn is a connection of a client.
type clientConn struct {
	net.Conn

	of      *Connections
	source  *source
	keyed   atomic.Bool  // it has shown a key that is known
	guessed atomic.Bool  // it waits for the answer to a wrong key
	waiting atomic.Bool  // for the first byte of a request
	writing atomic.Int64 // since when it takes what is written to it, in nanoseconds of the epoch; 0: nothing is

	phase phase     // guarded by of.mu, like since
	since time.Time // when phase began
}

// phase is what a connection is at.
type phase int

const (
	phaseNew    phase = iota // nothing has come
	phaseHeader              // a part of a header has come
	phaseAnswer              // a request is answered
	phaseIdle                // it has been answered, and nothing has come
)

// LimitConnections bounds the connections of l.
func LimitConnections(l net.Listener, bound int, log *slog.Logger) *Connections {
	return &Connections{
		Listener: l, bound: max(bound, 1), epoch: time.Now(), log: log,
		errs: rate.NewLimiter(rate.Every(connLogEvery), 1), fulls: rate.NewLimiter(rate.Every(connLogEvery), 1),
		open: map[*clientConn]struct{}{}, sources: map[netip.Addr]*source{},
	}
}

// Accept waits for the next connection, for which another may have to give way.
func (c *Connections) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err == nil {
			return c.add(conn), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if c.errs.Allow() {
			c.log.WarnContext(context.Background(), "connections are not accepted: raise the limit of open files, or lower --max-connections", "open", c.Open(), "err", err)
		}
		if !outOfDescriptors(err) || !c.evict(0) {
			return nil, err // net/http waits, and tries again
		}
	}
}

// outOfDescriptors reports whether err says that there are too many open files.
func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func (c *Connections) add(conn net.Conn) net.Conn {
	if c.evict(c.bound-1) && c.fulls.Allow() {
		c.log.WarnContext(context.Background(), "as many connections as may be are open: others give way to new ones", "at", c.Addr().String(), "bound", c.bound, "given_way", c.GivenWay())
	}
	at := sourceOf(conn.RemoteAddr())
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[at]
	if s == nil {
		s = &source{addr: at}
		c.sources[at] = s
	}
	s.conns++
	cc := &clientConn{Conn: conn, of: c, source: s, since: time.Now()}
	cc.waiting.Store(true)
	c.open[cc] = struct{}{}
	return cc
}

// sourceOf is what counts as one address: an IPv4 address, or the 64 bits of an IPv6
// address that whoever has one has all addresses below.
func sourceOf(addr net.Addr) netip.Addr {
	tcp, isTCP := addr.(*net.TCPAddr)
	if !isTCP {
		return netip.Addr{}
	}
	return addressOf(tcp.AddrPort().Addr())
}

func addressOf(at netip.Addr) netip.Addr {
	at = at.Unmap().WithZone("")
	if prefix, err := at.Prefix(64); err == nil && at.Is6() {
		return prefix.Addr()
	}
	return at
}

// evict closes a connection if more than so many are open, and reports whether it did.
func (c *Connections) evict(more int) bool {
	c.mu.Lock()
	if len(c.open) <= more {
		c.mu.Unlock()
		return false
	}
	victim := c.victim(time.Now())
	answering := victim.phase == phaseAnswer
	c.remove(victim)
	c.gone++
	c.mu.Unlock()
	if answering {
		_ = victim.SetLinger(0) // a broken answer must not look whole, and is not kept for who takes nothing
	}
	_ = victim.Conn.Close()
	return true
}

// victim is the connection that has to give way. The caller holds the lock.
func (c *Connections) victim(now time.Time) (victim *clientConn) {
	var rank int
	var since time.Time
	for cc := range c.open {
		r, s := cc.rank(now)
		switch {
		case victim == nil, r < rank,
			r == rank && cc.source.conns > victim.source.conns,
			r == rank && cc.source.conns == victim.source.conns && s.Before(since):
			victim, rank, since = cc, r, s
		}
	}
	return victim
}

// The order in which connections give way.
const (
	rankGuess = iota // waits for the answer to a wrong key
	rankIdle
	rankHeader
	rankSlow   // leaves a piece of its answer untaken
	rankFresh  // its header is on the way
	rankAnswer // is answered
	rankKeyed  // an administrator's
)

// rank is when the connection gives way, and since when it is what it is for that.
func (cc *clientConn) rank(now time.Time) (int, time.Time) {
	fresh := now.Sub(cc.since) < freshFor
	switch {
	case cc.guessed.Load():
		return rankGuess, cc.since
	case cc.phase == phaseIdle && cc.waiting.Load():
		return rankIdle, cc.since
	case cc.phase != phaseAnswer && fresh:
		return rankFresh, cc.since
	case cc.phase == phaseNew && cc.waiting.Load():
		return rankIdle, cc.since
	case cc.phase != phaseAnswer:
		return rankHeader, cc.since
	case cc.keyed.Load():
		return rankKeyed, cc.since
	}
	if at := cc.writing.Load(); at > 0 {
		if since := cc.of.epoch.Add(time.Duration(at)); now.Sub(since) > freshFor {
			return rankSlow, since
		}
	}
	return rankAnswer, cc.since
}

// remove forgets a connection. The caller holds the lock.
func (c *Connections) remove(cc *clientConn) {
	if _, is := c.open[cc]; !is {
		return
	}
	delete(c.open, cc)
	if cc.source.conns--; cc.source.conns == 0 {
		delete(c.sources, cc.source.addr)
	}
}

// ConnContext lets handlers find the connection of a request. It is for http.Server.
func (*Connections) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return answer.WithConnection(ctx, conn)
}

// ConnState follows what a connection is at. It is for http.Server.
func (*Connections) ConnState(conn net.Conn, state http.ConnState) { connState(conn, state) }

func connState(conn net.Conn, state http.ConnState) {
	cc, is := conn.(*clientConn)
	if !is {
		return // of a listener whose connections are not bounded
	}
	c := cc.of
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive:
		cc.phase, cc.since = phaseAnswer, time.Now()
		cc.waiting.Store(false)
	case http.StateIdle:
		cc.phase, cc.since = phaseIdle, time.Now()
		cc.waiting.Store(true)
	case http.StateClosed, http.StateHijacked:
		c.remove(cc)
	case http.StateNew:
	}
}

// Read notes when a request begins.
func (cc *clientConn) Read(p []byte) (int, error) {
	n, err := cc.Conn.Read(p)
	if n > 0 && cc.waiting.Load() {
		cc.of.mu.Lock()
		if cc.phase != phaseAnswer && cc.waiting.CompareAndSwap(true, false) {
			cc.phase, cc.since = phaseHeader, time.Now()
		}
		cc.of.mu.Unlock()
	}
	return n, err
}

// Write notes for how long the client is waited for.
func (cc *clientConn) Write(p []byte) (int, error) {
	cc.writing.Store(max(1, int64(time.Since(cc.of.epoch))))
	defer cc.writing.Store(0)
	return cc.Conn.Write(p)
}

// Close closes the connection.
func (cc *clientConn) Close() error {
	cc.of.mu.Lock()
	cc.of.remove(cc)
	cc.of.mu.Unlock()
	return cc.Conn.Close()
}

// CloseWrite ends what is sent.
func (cc *clientConn) CloseWrite() error {
	if c, is := cc.Conn.(interface{ CloseWrite() error }); is {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger says for how long the system keeps what the client has not taken.
func (cc *clientConn) SetLinger(seconds int) error {
	if c, is := cc.Conn.(interface{ SetLinger(int) error }); is {
		return c.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// SetWriteBuffer bounds what the system keeps of what the client has not taken.
func (cc *clientConn) SetWriteBuffer(bytes int) error {
	if c, is := cc.Conn.(interface{ SetWriteBuffer(int) error }); is {
		return c.SetWriteBuffer(bytes)
	}
	return errors.ErrUnsupported
}

// markKeyed notes that the client of r has shown a key that is known.
func markKeyed(r *http.Request) {
	if cc, is := answer.ConnectionOf(r).(*clientConn); is {
		cc.keyed.Store(true)
	}
}

// markGuess notes whether the client of r waits for the answer to a wrong key.
func markGuess(r *http.Request, is bool) {
	if cc, bounded := answer.ConnectionOf(r).(*clientConn); bounded {
		cc.guessed.Store(is)
	}
}

// Open is how many connections are open.
func (c *Connections) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// GivenWay is how many connections have given way to others.
func (c *Connections) GivenWay() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}
