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
	"time"
)

// errCrowded says that an address has all the connections that we open to it.
var errCrowded = errors.New("too many connections of ours")

// crowd counts the connections to one address, whatever names led there: a
// thousand host names can be one machine. It is guarded by its guard's lock.
type crowd struct {
	open    int // connections, and dials under way
	conns   []*guardedConn
	waiting []chan struct{} // each closed when its turn has come; longest first
}

// enter waits until one more connection to the address may be opened. A
// connection that nobody uses gives way.
func (g *guard) enter(ctx context.Context, to netip.Addr) error {
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
	c.waiting = append(c.waiting, turn)
	idle := c.idle(g.timeout)
	g.mu.Unlock()
	if idle != nil {
		_ = idle.Close() // its place is ours, or that of who waits longer
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(c.waiting, turn); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	} else {
		g.yield(to) // the turn came in the same moment
	}
	return fmt.Errorf("connect to %s: %w", to, errCrowded)
}

// idle is a connection that no request uses. One that has not been used yet is
// still on its way to the request that wanted it, unless that went another way.
func (c *crowd) idle(patience time.Duration) *guardedConn {
	for _, conn := range c.conns {
		if conn.users == 0 && (conn.used || time.Since(conn.opened) > patience) {
			return conn
		}
	}
	return nil
}

// yield gives a place at an address to whoever waits, or back. The caller holds the lock.
func (g *guard) yield(to netip.Addr) {
	c := g.crowds[to]
	if len(c.waiting) > 0 {
		close(c.waiting[0])
		c.waiting = slices.Delete(c.waiting, 0, 1)
		return
	}
	if c.open--; c.open == 0 {
		delete(g.crowds, to)
	}
}

// dialling is one dial, which may try several addresses, some of them at once.
type dialling struct {
	guard *guard

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
	at := to.Addr().Unmap().WithZone("")
	if err := d.guard.enter(ctx, at); err != nil {
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

// end gives back every place but that of conn, which may be nil, and tells which it is.
func (d *dialling) end(conn net.Conn) (at netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if conn != nil {
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			at = to.AddrPort().Addr().Unmap().WithZone("")
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
	return at
}

// use is what one request does with connections: one at a time, and rarely a
// second one, when the first turns out to be dead.
type use struct {
	guard *guard
	conn  *guardedConn
}

// begin is told of the connection that the request goes out on.
func (u *use) begin(conn net.Conn) {
	u.end()
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	gc, ok := conn.(*guardedConn)
	if !ok {
		return
	}
	u.guard.mu.Lock()
	defer u.guard.mu.Unlock()
	u.conn = gc
	gc.users++
	gc.used = true
}

// end is called when the request is over. A connection that is now idle makes
// room if anybody waits for it.
func (u *use) end() {
	conn := u.conn
	if conn == nil {
		return
	}
	u.conn = nil
	u.guard.mu.Lock()
	conn.users--
	c := u.guard.crowds[conn.at]
	wanted := conn.users == 0 && c != nil && len(c.waiting) > 0
	u.guard.mu.Unlock()
	if wanted {
		_ = conn.Close() // nothing is under way on it
	}
}

// guardedConn is a connection that its guard knows. What is below at is guarded
// by the guard's lock.
type guardedConn struct {
	net.Conn
	guard *guard
	at    netip.Addr

	opened time.Time
	used   bool
	users  int // requests under way
	closed bool
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
