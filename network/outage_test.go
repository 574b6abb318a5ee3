package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// nobody is a host where nothing listens.
func nobody(t *testing.T) (Host, string) {
	t.Helper()
	ln, err := listen(t, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it only had to have a port
	return Host("http://" + ln.Addr().String()), ln.Addr().String()
}

func askEach(t *testing.T, c *Client, hosts []Host, times int) (network, other int) {
	t.Helper()
	for i := range times {
		host := hosts[i%len(hosts)]
		_, err := c.ListRecords(t.Context(), host, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		if p, ok := errors.AsType[*Parked](err); ok && p.Why == WhyNetwork && p.Host == host {
			network++
		} else {
			other++
		}
	}
	return network, other
}

func TestOurOwnOutageParksEverythingUntilAHostAnswers(t *testing.T) {
	t.Parallel()
	var hosts []Host
	var back string
	for range 6 {
		h, address := nobody(t)
		hosts, back = append(hosts, h), address
	}
	c := newClient(t, Config{Timing: Timing{OutageProbe: 100 * time.Millisecond, Probe: time.Minute}})
	// With the directory, the first could be one of two dead hosts: too few to tell.
	if network, other := askEach(t, c, hosts, 20); network != 20-(outageHosts-2) || other != outageHosts-2 || !c.Outage() {
		t.Fatalf("%d network, %d other, outage %v", network, other, c.Outage())
	}
	if network, other := askEach(t, c, hosts, 12); other != 0 {
		t.Fatalf("during the outage: %d network, %d other", network, other)
	}
	if _, parked := c.ParkedUntil("https://never.asked.example"); !parked {
		t.Fatal("a host that was never asked is not parked")
	}
	for _, h := range hosts {
		if st := c.HostState(h); st.Failures != 0 || st.Down {
			t.Fatalf("%s is blamed for our outage: %+v", h, st)
		}
	}
	ln, err := listen(t, back)
	if err != nil {
		t.Skipf("the port is taken: %v", err)
	}
	server := &http.Server{Handler: says(200, "application/json", `{"records":[]}`)} //nolint:gosec // a test's
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := c.ListRecords(ctx, hosts[len(hosts)-1], alice, status, "")
		if err == nil {
			break
		}
		p, ok := errors.AsType[*Parked](err)
		if !ok {
			t.Fatal(err)
		}
		<-time.After(time.Until(p.Until))
	}
	if c.Outage() {
		t.Fatal("the outage did not end with an answer")
	}
}

func TestDeadHostsAloneAreNoOutageOfOurs(t *testing.T) {
	t.Parallel()
	relay := serve(t, says(200, "application/json", `{"repos":[]}`))
	var hosts []Host
	for range 6 {
		h, _ := nobody(t)
		hosts = append(hosts, h)
	}
	c := newClient(t, Config{Relay: string(relay), Timing: Timing{Probe: time.Microsecond, MaxProbe: time.Microsecond}})
	if network, _ := askEach(t, c, hosts, 100); network != 0 || c.Outage() {
		t.Fatalf("%d calls blamed our network, outage %v, although the relay is there", network, c.Outage())
	}
}

func TestOutagesDoNotCountForAHostThatWasWell(t *testing.T) {
	t.Parallel()
	v4 := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(1, 1, 1, 1), Port: 443}, Err: syscall.ENETUNREACH}
	v6 := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.ParseIP("2606:4700::1"), Port: 443}, Err: syscall.ENETUNREACH}
	windows := &net.OpError{Op: "dial", Net: "tcp", Addr: v4.Addr, Err: os.NewSyscallError("connectex", syscall.Errno(10051))}
	sick := &net.DNSError{Err: "server misbehaving", Name: "a.example", IsTemporary: true}
	for name, c := range map[string]struct {
		cause error
		proof time.Duration // how old
		asked bool          // are the witnesses
	}{
		"no route, proved just now":       {v4, 0, true},
		"no route, as Windows has it":     {windows, 0, true},
		"no route over IPv6":              {v6, 0, false},
		"refused, proved lately":          {&net.OpError{Op: "dial", Net: "tcp", Addr: v4.Addr, Err: syscall.ECONNREFUSED}, time.Second, false},
		"timeout, proved lately":          {errTooSlow, time.Second, false},
		"timeout, proved long ago":        {errTooSlow, time.Minute, true},
		"no name server, proved just now": {sick, 0, false},
		"no name server, proved lately":   {sick, time.Second, true},
		"no such name, proved lately":     {&net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true}, time.Second, false},
	} {
		now := time.Now()
		var asked atomic.Int32
		for _, reached := range []bool{true, false} {
			asked.Store(0)
			o := &outage{
				fixed: []Host{"relay", "plc"}, proof: now.Add(-c.proof), changed: func(context.Context, bool) {},
				reach: func(context.Context, Host) bool { asked.Add(1); return reached },
			}
			p := o.failure(t.Context(), attempt{host: "host", began: now, cause: fmt.Errorf("send: %w", c.cause)}, func() time.Time { return now })
			if (asked.Load() > 0) != c.asked || (p != nil) != (c.asked && !reached) {
				t.Errorf("%s, reached %v: %d were asked, parked %v", name, reached, asked.Load(), p)
			}
		}
	}
}
