package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"appview/internal/network/hosttest"
	"appview/internal/network/polite"
)

func TestAConnectionThatTookLongDoesNotSendIntoAPause(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	})
	c := newClient(t, Config{}, limits{})
	dial := c.transport.DialContext
	c.transport.DialContext = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		conn, err = dial(ctx, network, address)
		pause(ctx, t, c, host)
		return conn, err
	}
	_, err := page(t, c, host)
	if p, ok := errors.AsType[*polite.Parked](err); !ok || p.Why != polite.WhyRateLimited {
		t.Fatalf("got %v, want parked", err)
	}
	if n := requests.Load(); n != 0 {
		t.Fatalf("%d requests were sent", n)
	}
	if until, parked := c.cfg.Gates.ParkedUntil(host, polite.ScopeOrdinary, polite.CircuitOrdinary); !parked || time.Until(until) < 50*time.Second {
		t.Fatalf("parked until %s, %v", until, parked)
	}
}

// Over HTTP/2 many requests share a connection: those that are being answered must
// not pay for one that comes into a pause.
func TestARequestIntoAPauseLeavesOthersTheirConnection(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = w.Write([]byte(`{"records":`))
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-goOn
		_, _ = w.Write([]byte(`[]}`))
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, Config{}, limits{})
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	c.transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	first := make(chan error, 1)
	go func() {
		_, err := pageOf(t.Context(), c, polite.Host(s.URL), alice)
		first <- err
	}()
	<-begun
	q := listing(polite.Host(s.URL), alice)
	permit, err := c.cfg.Gates.Acquire(t.Context(), q.Question)
	if err != nil {
		t.Fatal(err)
	}
	defer permit.Release()
	pause(t.Context(), t, c, polite.Host(s.URL))
	_, err = c.send(t.Context(), permit, q)
	if !errors.Is(err, errPaused) {
		t.Errorf("got %v, want %v", err, errPaused)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
}
