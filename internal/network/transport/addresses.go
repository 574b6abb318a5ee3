package transport

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

// errAddressFull says that an address has all the connections that we open to it.
var errAddressFull = errors.New("too many connections of ours")

// addressLimiter bounds the connections to one address, whatever names led there: a
// thousand host names can be one machine. It is guarded by its guard's lock.
type addressLimiter struct {
	open    int // connections, and dials under way
	conns   []*guardedConn
	waiters []waiter // longest first
}

// waiter waits for a slot of an address.
type waiter struct {
	ready chan struct{} // closed when the slot is its own
	host  string        // name and port of the host that it dials
}

// acquire waits until one more connection to the address may be opened, for the host
// of that name and port. An idle connection to another host is closed for it. One to the
// same host is not: the transport gives it to the request that waits, and to open another
// in its place would be work for nothing.
func (g *guard) acquire(ctx context.Context, host string, to netip.Addr) error {
	g.mu.Lock()
	l := g.limiters[to]
	if l == nil {
		l = new(addressLimiter)
		g.limiters[to] = l
	}
	if l.open < g.perAddress {
		l.open++
		g.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	l.waiters = append(l.waiters, waiter{ready, host})
	idle, served := l.idle(host), connUseOf(ctx).done()
	g.mu.Unlock()
	if idle != nil {
		_ = idle.Close() // its slot is ours, or that of who waits longer
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	case <-served:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.IndexFunc(l.waiters, func(w waiter) bool { return w.ready == ready }); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
	} else {
		g.release(to) // the slot became ours in the same moment
	}
	return fmt.Errorf("connect to %s: %w", to, errAddressFull)
}

// idle is a connection to another host than the given one that no request uses, nor will.
func (l *addressLimiter) idle(host string) *guardedConn {
	for _, conn := range l.conns {
		if conn.users == 0 && !conn.reserved && conn.host != host {
			return conn
		}
	}
	return nil
}

// release gives a slot of an address to whoever waits longest, or back. The caller holds
// the lock.
func (g *guard) release(to netip.Addr) {
	l := g.limiters[to]
	if l == nil {
		return
	}
	if len(l.waiters) > 0 {
		close(l.waiters[0].ready)
		l.waiters = slices.Delete(l.waiters, 0, 1)
		return
	}
	if l.open--; l.open == 0 {
		delete(g.limiters, to)
	}
}

// limitedAddress is what counts as one address: an IPv4 address, or the 64 bits of an
// IPv6 address that whoever rents a machine gets as a whole, to use as many
// addresses of as they like.
func limitedAddress(addr netip.Addr) netip.Addr {
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

// dial is one dial, which may try several addresses, some of them at once.
type dial struct {
	guard *guard
	host  string // name and port

	mu    sync.Mutex
	ended bool
	slots []netip.Addr // that were acquired
}

// control runs between the creation of a socket and its connecting.
func (d *dial) control(ctx context.Context, network, address string, raw syscall.RawConn) error {
	if err := d.guard.check(ctx, network, address, raw); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %q: %w", address, err)
	}
	at := limitedAddress(to.Addr())
	if err := d.guard.acquire(ctx, d.host, at); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended { // another address was faster
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		d.guard.release(at)
		return net.ErrClosed
	}
	d.slots = append(d.slots, at)
	return nil
}

// end releases every slot but that of conn, which may be nil, and returns the address of
// that one: none, for a connection to an address that was not dialled.
func (d *dial) end(conn net.Conn) (at netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if conn != nil {
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			at = limitedAddress(to.AddrPort().Addr())
		}
	}
	d.guard.mu.Lock()
	defer d.guard.mu.Unlock()
	found := false
	for _, slot := range d.slots {
		if slot == at && !found {
			found = true
			continue
		}
		d.guard.release(slot)
	}
	if !found {
		return netip.Addr{}
	}
	return at
}

// connUse is what one request does with connections. The transport opens one for it,
// and gives it another one if that is free earlier; then the one that was opened
// is wanted by nobody. Its members are guarded by the guard's lock.
type connUse struct {
	guard    *guard
	conn     *guardedConn  // that the request is under way on
	reserved *guardedConn  // that was opened for it
	served   chan struct{} // closed while the request wants no new connection
	evicted  bool          // conn was closed in the moment in which it was chosen
}

// connUseKey is the key of the connUse in the context that the transport dials with.
type connUseKey struct{}

// watchConns begins the connUse of a request with the context.
func (g *guard) watchConns(ctx context.Context) (context.Context, *connUse) {
	u := &connUse{guard: g, served: make(chan struct{})}
	return context.WithValue(ctx, connUseKey{}, u), u
}

// connUseOf is the connUse that a dial is for; nil if for none.
func connUseOf(ctx context.Context) *connUse {
	u, _ := ctx.Value(connUseKey{}).(*connUse)
	return u
}

// done is closed when the request wants no new connection. The caller holds the lock.
func (u *connUse) done() <-chan struct{} {
	if u == nil {
		return nil
	}
	return u.served
}

// offer reserves a connection that was opened for the request, and reports whether it is to
// be kept open. The caller holds the lock.
func (u *connUse) offer(conn *guardedConn) bool {
	if u == nil {
		return true
	}
	select {
	case <-u.served:
		return !u.guard.contended(conn)
	default:
	}
	if u.reserved != nil {
		u.reserved.reserved = false
	}
	u.reserved, conn.reserved = conn, true
	return true
}

// awaitConn begins to wait for a connection: at first, and again when the one that the
// request got turns out to be dead.
func (u *connUse) awaitConn() {
	u.guard.mu.Lock()
	defer u.guard.mu.Unlock()
	u.served = make(chan struct{})
}

// gotConn takes the connection that the request goes out on.
func (u *connUse) gotConn(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	gc, _ := conn.(*guardedConn)
	u.switchTo(gc)
}

// wasEvicted reports whether the connection that the request got last was closed just
// before, for another host: nothing of the request was sent.
func (u *connUse) wasEvicted() bool {
	u.guard.mu.Lock()
	defer u.guard.mu.Unlock()
	return u.evicted
}

// end ends the request.
func (u *connUse) end() { u.switchTo(nil) }

// switchTo moves the request from the connection that it uses, if any, to the next.
func (u *connUse) switchTo(next *guardedConn) {
	u.guard.mu.Lock()
	select {
	case <-u.served:
	default:
		close(u.served)
	}
	if next != nil {
		next.users++
		u.evicted = next.closed
	}
	if u.conn != nil {
		u.conn.users--
	}
	left := [...]*guardedConn{u.conn, u.reserved}
	u.conn, u.reserved = next, nil
	if left[1] != nil {
		left[1].reserved = false
	}
	for i, conn := range left {
		if conn == nil || conn.users > 0 || conn.reserved || !u.guard.contended(conn) {
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

// contended reports whether anybody waits for the slot of a connection who could not use the
// connection itself.
func (g *guard) contended(conn *guardedConn) bool {
	l := g.limiters[conn.at]
	return l != nil && slices.ContainsFunc(l.waiters, func(w waiter) bool { return w.host != conn.host })
}

// guardedConn is a connection that its guard knows. What is below at is guarded
// by the guard's lock.
type guardedConn struct {
	net.Conn
	guard *guard
	host  string // name and port
	at    netip.Addr

	reserved bool // for a request that has not got it yet
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
	if l := g.limiters[conn.at]; l != nil {
		l.conns = slices.DeleteFunc(l.conns, func(other *guardedConn) bool { return other == conn })
		g.release(conn.at)
	}
}
