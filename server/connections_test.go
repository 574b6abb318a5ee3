package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appview/store/storetest"
)

// bounded is a server whose connections are bounded, and those to a socket of its own
// machine are not.
type bounded struct {
	*rig

	conns *Connections
	local net.Listener
}

func newBounded(t *testing.T, bound int, change ...func(net.Listener) net.Listener) *bounded {
	t.Helper()
	r := newRig(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	r.check(err)
	for _, c := range change {
		l = c(l)
	}
	b := &bounded{rig: r, conns: LimitConnections(l, bound, r.server.log)}
	b.local = r.listenUnix()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx, b.conns, b.local) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// listenUnix listens on a socket whose path is short enough for every system.
func (r *rig) listenUnix() net.Listener {
	r.t.Helper()
	dir, err := os.MkdirTemp("", "appview") // t.TempDir has the name of the test in its path
	r.check(err)
	r.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := new(net.ListenConfig).Listen(r.t.Context(), "unix", filepath.Join(dir, "s"))
	r.check(err)
	return l
}

// dial connects from an address of this machine, and sends something.
func (b *bounded) dial(from, text string) net.Conn {
	b.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(b.t.Context(), "tcp", b.conns.Addr().String())
	b.check(err)
	b.t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, text)
	b.check(err)
	return conn
}

// waitFor waits until so many connections are open at what is.
func (b *bounded) waitFor(n int, is func(*clientConn) bool) {
	b.t.Helper()
	count := func() (n int) {
		b.conns.mu.Lock()
		defer b.conns.mu.Unlock()
		for cc := range b.conns.open {
			if is(cc) {
				n++
			}
		}
		return n
	}
	for tick, late := time.Tick(time.Millisecond), time.After(30*time.Second); count() != n; {
		select {
		case <-tick:
		case <-late:
			b.t.Fatalf("%d of %d connections are so, want %d", count(), b.conns.Open(), n)
		}
	}
}

func at(p phase) func(*clientConn) bool { return func(cc *clientConn) bool { return cc.phase == p } }

// asks sends a request on a connection, and reads the answer.
func (b *bounded) asks(conn net.Conn, path string) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, testKey); err != nil {
		return err
	}
	b.check(conn.SetReadDeadline(time.Now().Add(30 * time.Second)))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// isOpenTo reports whether the server has left a connection open.
func isOpenTo(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// TestNewConnectionsGetInAtTheBound fills the bound with clients of each kind, and more.
func TestNewConnectionsGetInAtTheBound(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"silent":           "",
		"half a header":    "GET /health HTTP/1.1\r\nHost: loc",
		"one byte":         "G",
		"header at length": "GET /health HTTP/1.1\r\nX: " + strings.Repeat("x", 8<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBounded(t, 16)
			for range 100 {
				b.dial("127.0.0.1", text)
			}
			for range 5 {
				if err := b.asks(b.dial("127.0.0.1", ""), "/health"); err != nil {
					t.Error(err)
				}
			}
			if n := b.conns.Open(); n > 16 {
				t.Errorf("%d are open", n)
			}
			if n := b.conns.GivenWay(); n < 84 {
				t.Errorf("%d have given way", n)
			}
			b.logs.wait(t, "as many connections as may be are open")
		})
	}
}

// TestConnectionsGiveWayInOrder has one connection of each kind, and asks which of them is left
// when more and more come.
func TestConnectionsGiveWayInOrder(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 5)
	path := b.long()[0]
	idle := b.dial("127.0.0.1", "")
	b.check(b.asks(idle, "/health"))
	b.waitFor(1, at(phaseIdle))
	header := b.dial("127.0.0.1", "GET / HT")
	b.waitFor(1, at(phaseHeader))
	slow := b.dial("127.0.0.1", "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	b.waitFor(1, func(cc *clientConn) bool {
		return cc.writing.Load() > 0 && time.Since(b.conns.epoch)-time.Duration(cc.writing.Load()) > 2*freshFor
	})
	keyed := b.dial("127.0.0.1", "POST /admin/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
	b.waitFor(1, func(cc *clientConn) bool { return cc.keyed.Load() })
	own := b.dial("127.0.0.1", "POST /admin/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
	b.waitFor(2, func(cc *clientConn) bool { return cc.keyed.Load() })
	for i, want := range [][]bool{
		{true, true, true, true}, {false, true, true, true}, {false, false, true, true}, {false, false, false, true},
	} {
		got := []bool{isOpenTo(idle), isOpenTo(header), b.isThere(slow), isOpenTo(keyed)}
		if !slices.Equal(got, want) {
			t.Errorf("after %d more: idle, header, slow, keyed are %v, want %v", i, got, want)
		}
		b.dial("127.0.0.1", "POST /admin/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
		b.waitFor(min(3+i, 5), func(cc *clientConn) bool { return cc.keyed.Load() })
	}
	if !isOpenTo(own) {
		t.Error("a newer one of the same kind gave way")
	}
}

// isThere reports whether the server knows a connection of this end.
func (b *bounded) isThere(conn net.Conn) bool {
	b.conns.mu.Lock()
	defer b.conns.mu.Unlock()
	for cc := range b.conns.open {
		if cc.RemoteAddr().String() == conn.LocalAddr().String() {
			return true
		}
	}
	return false
}

// TestConnectionsOfTheMachineAreNotOfTheBound has more connections to the socket than may
// be open to the port, and fills that meanwhile.
func TestConnectionsOfTheMachineAreNotOfTheBound(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 4)
	port := b.dial("127.0.0.1", "")
	b.check(b.asks(port, "/health"))
	var local []net.Conn
	for range 12 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", b.local.Addr().String())
		b.check(err)
		t.Cleanup(func() { _ = conn.Close() })
		b.check(b.asks(conn, "/admin/stats"))
		local = append(local, conn)
	}
	if n := b.conns.GivenWay(); n > 0 || b.conns.Open() != 1 || !isOpenTo(port) {
		t.Errorf("%d have given way, %d are open", n, b.conns.Open())
	}
	for range 20 {
		b.dial("127.0.0.1", "GET")
	}
	b.waitFor(4, at(phaseHeader))
	for _, conn := range local {
		if err := b.asks(conn, "/health"); err != nil {
			t.Error(err)
		}
	}
}

// TestSocketsHaveNoAddress bounds the connections to a socket of the operator's choice.
func TestSocketsHaveNoAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.listenUnix()
	conns := LimitConnections(l, 4, r.server.log)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx, conns) }()
	b := &bounded{rig: r, conns: conns}
	for range 20 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", l.Addr().String())
		b.check(err)
		t.Cleanup(func() { _ = conn.Close() })
		b.check(b.asks(conn, "/health"))
	}
	if n := conns.GivenWay(); n != 16 || conns.Open() != 4 {
		t.Errorf("%d have given way, %d are open", n, conns.Open())
	}
	stop()
	b.check(<-ended)
}

// TestTheAddressWithMostGivesWay has the older connections of one who has few, and the
// newer ones of one who has many.
func TestTheAddressWithMostGivesWay(t *testing.T) {
	storetest.Long(t) // it wants the processor, which several quick tests share
	t.Parallel()
	b := newBounded(t, 20)
	var few []net.Conn
	for range 4 {
		few = append(few, b.dial("127.0.0.2", ""))
	}
	for range 60 {
		b.dial("127.0.0.3", "")
	}
	last := b.dial("127.0.0.4", "")
	b.waitFor(20, func(*clientConn) bool { return true })
	for i, conn := range append(few, last) {
		if err := b.asks(conn, "/health"); err != nil {
			t.Errorf("connection %d of who has few: %v", i, err)
		}
	}
}

func TestAnswersThatAreTakenAreNotCut(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 8)
	path := b.long()[0]
	var clients sync.WaitGroup
	failed := make(chan error, 8)
	for range 4 {
		conn := b.dial("127.0.0.1", "")
		clients.Go(func() {
			if err := b.asks(conn, path); err != nil {
				failed <- err
			}
		})
	}
	b.waitFor(4, at(phaseAnswer))
	for range 100 {
		b.dial("127.0.0.1", "")
	}
	clients.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

func TestAddressesOfOneNetworkAreOne(t *testing.T) {
	t.Parallel()
	of := func(ip string) any { return sourceOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}) }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1:2:3", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		if (of(c.a) == of(c.b)) != c.same {
			t.Errorf("%s and %s are the same: %t", c.a, c.b, !c.same)
		}
	}
}

// spent is a listener that finds no descriptor a few times.
type spent struct {
	net.Listener

	mu    sync.Mutex
	fails int
	err   error
}

func (l *spent) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: l.err}
	}
	return l.Listener.Accept()
}

func TestConnectionsThatAreNotAcceptedAreLogged(t *testing.T) {
	t.Parallel()
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED} {
		b := newBounded(t, 20, func(l net.Listener) net.Listener { return &spent{Listener: l, fails: 4, err: err} })
		b.logs.wait(t, "connections are not accepted")
		b.check(b.asks(b.dial("127.0.0.1", ""), "/health"))
		if n := strings.Count(b.logs.String(), "connections are not accepted"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, b.logs)
		}
	}
}
