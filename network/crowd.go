package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// errCrowded says that an address has all the connections that we open to it.
var errCrowded = errors.New("too many connections of ours")

// crowd counts the connections to one address, whatever names led there: a
// thousand host names can be one machine. It is guarded by its guard's lock.
type crowd struct {
	open    int // connections, and dials under way
	conns   []*guardedConn
	waiting []waiter // longest first
}

// waiter waits for a place at an address.
type waiter struct {
	turn chan struct{} // closed when its turn has come
	host string        // name and port of whom it wants to reach there
}

// enter waits until one more connection to the address may be opened, for the host
// of that name and port. A connection to another host that nobody uses gives way.
// One to the same host does not: the transport gives it to the request that waits,
// and to open another in its place would be work for nothing.
func (g *guard) enter(ctx context.Context, host string, to netip.Addr) error {
	g.mu.Lock()
	c := g.crowds[to]
	if c == nil {
		c = new(crowd)
		g.crowds[to] = c
	}
	if c.open < g.perAddress {
		c.open++
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	c.waiting = append(c.waiting, waiter{turn, host})
	idle, served := c.idle(host), useOf(ctx).done()
	g.mu.Unlock()
	if idle != nil {
		_ = idle.Close() // its place is ours, or that of who waits longer
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	case <-served:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.IndexFunc(c.waiting, func(w waiter) bool { return w.turn == turn }); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	} else {
		g.yield(to) // the turn came in the same moment
	}
	return fmt.Errorf("connect to %s: %w", to, errCrowded)
}

// idle is a connection to another host than the given one that no request uses, and
// none has been promised.
func (c *crowd) idle(host string) *guardedConn {
	for _, conn := range c.conns {
		if conn.users == 0 && !conn.promised && conn.host != host {
			return conn
		}
	}
	return nil
}

// yield gives a place at an address to whoever waits, or back. The caller holds the lock.
func (g *guard) yield(to netip.Addr) {
	c := g.crowds[to]
	if c == nil {
		return
	}
	if len(c.waiting) > 0 {
		close(c.waiting[0].turn)
		c.waiting = slices.Delete(c.waiting, 0, 1)
		return
	}
	if c.open--; c.open == 0 {
		delete(g.crowds, to)
	}
}

// machine is what counts as one address: an IPv4 address, or the 64 bits of an
// IPv6 address that whoever rents a machine gets as a whole, to use as many
// addresses of as they like.
func machine(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.Addr()
}

// dialling is one dial, which may try several addresses, some of them at once.
type dialling struct {
	guard *guard
	host  string // name and port

	mu    sync.Mutex
	over  bool
	holds []netip.Addr
}

// control runs between the creation of a socket and its connecting.
func (d *dialling) control(ctx context.Context, network, address string, raw syscall.RawConn) error {
	if err := d.guard.check(ctx, network, address, raw); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %q: %w", address, err)
	}
	at := machine(to.Addr())
	if err := d.guard.enter(ctx, d.host, at); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over { // another address was faster
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		d.guard.yield(at)
		return net.ErrClosed
	}
	d.holds = append(d.holds, at)
	return nil
}

// end gives back every place but that of conn, which may be nil, and tells which
// that is: none, for a connection to an address that was not asked for.
func (d *dialling) end(conn net.Conn) (at netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if conn != nil {
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			at = machine(to.AddrPort().Addr())
		}
	}
	d.guard.mu.Lock()
	defer d.guard.mu.Unlock()
	kept := false
	for _, held := range d.holds {
		if held == at && !kept {
			kept = true
			continue
		}
		d.guard.yield(held)
	}
	if !kept {
		return netip.Addr{}
	}
	return at
}

// use is what one request does with connections. The transport opens one for it,
// and gives it another one if that is free earlier; then the one that was opened
// is wanted by nobody. Its members are guarded by the guard's lock.
type use struct {
	guard    *guard
	conn     *guardedConn  // that the request is under way on
	promised *guardedConn  // that was opened for it
	served   chan struct{} // closed while the request wants no new connection
	lost     bool          // conn had to give way in the moment in which it was chosen
}

// useKey finds the use in the context that the transport dials with.
type useKey struct{}

// use begins to watch a request with the context.
func (g *guard) use(ctx context.Context) (context.Context, *use) {
	u := &use{guard: g, served: make(chan struct{})}
	return context.WithValue(ctx, useKey{}, u), u
}

// useOf is the use that a dial is for; nil if for none.
func useOf(ctx context.Context) *use {
	u, _ := ctx.Value(useKey{}).(*use)
	return u
}

// done is closed when the request wants no new connection. The caller holds the lock.
func (u *use) done() <-chan struct{} {
	if u == nil {
		return nil
	}
	return u.served
}

// opened is told of a connection that was opened for the request. The caller
// holds the lock. It tells whether anybody wants it.
func (u *use) opened(conn *guardedConn) bool {
	if u == nil {
		return true
	}
	select {
	case <-u.served:
		return !u.guard.wanted(conn)
	default:
	}
	if u.promised != nil {
		u.promised.promised = false
	}
	u.promised, conn.promised = conn, true
	return true
}

// ask is told that the request wants a connection: at first, and again when the
// one that it got turns out to be dead.
func (u *use) ask() {
	u.guard.mu.Lock()
	defer u.guard.mu.Unlock()
	u.served = make(chan struct{})
}

// begin is told of the connection that the request goes out on.
func (u *use) begin(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	gc, _ := conn.(*guardedConn)
	u.turn(gc)
}

// gaveWay tells whether the connection that the request got last was closed to
// make room just before: nothing of the request was sent.
func (u *use) gaveWay() bool {
	u.guard.mu.Lock()
	defer u.guard.mu.Unlock()
	return u.lost
}

// end is called when the request is over.
func (u *use) end() { u.turn(nil) }

// turn moves the request from the connection that it uses, if any, to the next.
func (u *use) turn(next *guardedConn) {
	u.guard.mu.Lock()
	select {
	case <-u.served:
	default:
		close(u.served)
	}
	if next != nil {
		next.users++
		u.lost = next.closed
	}
	if u.conn != nil {
		u.conn.users--
	}
	left := [...]*guardedConn{u.conn, u.promised}
	u.conn, u.promised = next, nil
	if left[1] != nil {
		left[1].promised = false
	}
	for i, conn := range left {
		if conn == nil || conn.users > 0 || conn.promised || !u.guard.wanted(conn) {
			left[i] = nil
		}
	}
	u.guard.mu.Unlock()
	for _, conn := range left {
		if conn != nil {
			_ = conn.Close() // nothing is under way on it
		}
	}
}

// wanted tells whether anybody waits for the place that a connection takes and could
// not have the connection itself.
func (g *guard) wanted(conn *guardedConn) bool {
	c := g.crowds[conn.at]
	return c != nil && slices.ContainsFunc(c.waiting, func(w waiter) bool { return w.host != conn.host })
}

// guardedConn is a connection that its guard knows. What is below at is guarded
// by the guard's lock.
type guardedConn struct {
	net.Conn
	guard *guard
	host  string // name and port
	at    netip.Addr

	promised bool // to a request that has not got it yet
	users    int  // requests under way
	closed   bool
}

// Close closes the connection and forgets it.
func (c *guardedConn) Close() error {
	err := c.Conn.Close()
	c.guard.forget(c)
	return err
}

func (g *guard) forget(conn *guardedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if conn.closed {
		return
	}
	conn.closed = true
	delete(g.conns, conn)
	if c := g.crowds[conn.at]; c != nil {
		c.conns = slices.DeleteFunc(c.conns, func(other *guardedConn) bool { return other == conn })
		g.yield(conn.at)
	}
}
