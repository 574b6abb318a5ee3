package transport

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// connsTo is how many connections lead to the test servers' address.
func connsTo(c *Client) int {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if at := c.guard.limiters[netip.MustParseAddr("127.0.0.1")]; at != nil {
		return at.open
	}
	return 0
}

func TestManyNamesOfOneAddressShareItsConnections(t *testing.T) {
	t.Parallel()
	const most, hosts, each = 3, 12, 6
	c := newClient(t, Config{PerAddress: most}, limits{})
	var inFlight, tooMany atomic.Int32
	var all []polite.Host
	for range hosts {
		all = append(all, hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			if inFlight.Add(1) > most || connsTo(c) > most {
				tooMany.Add(1)
			}
			defer inFlight.Add(-1)
			hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
		}))
	}
	var wg sync.WaitGroup
	for i := range hosts * each {
		wg.Go(func() {
			_, err := pageOf(t.Context(), c, all[i%hosts], did(i))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := tooMany.Load(); n > 0 {
		t.Errorf("%d times there were more than %d", n, most)
	}
	if n := connsTo(c); n < 1 || n > most {
		t.Errorf("%d connections are left", n)
	}
	c.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); connsTo(c) != 0; <-tick.C { // dials under way end by themselves
		if time.Now().After(end) {
			t.Fatalf("%d connections are left after Close", connsTo(c))
		}
	}
}

// TestConnectionsOfAHostAreUsedAgain has far more requests to one host under way
// than connections lead to its address.
func TestConnectionsOfAHostAreUsedAgain(t *testing.T) {
	t.Parallel()
	const most, workers, each = 4, 64, 20
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(hosttest.Says(200, "application/json", `{"records":[]}`))
	s.Config.ConnState = func(_ net.Conn, to http.ConnState) {
		if to == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newClient(t, Config{PerAddress: most}, limits{PerHost: workers})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if _, err := page(t, c, polite.Host(s.URL)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := opened.Load(); n > workers {
		t.Errorf("%d connections were opened for %d requests", n, workers*each)
	}
	c.Close()
}

func TestAFullAddressIsNoFaultOfTheHost(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 1)
	busy := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		hosttest.Silent(w, r)
	})
	other := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	c := newClient(t, Config{PerAddress: 1, Timing: Timing{Connect: 200 * time.Millisecond, Header: 600 * time.Millisecond}}, limits{})
	done := make(chan error, 1)
	go func() {
		_, err := page(t, c, busy)
		done <- err
	}()
	<-started
	if _, err := page(t, c, other); reasonOf(err) != "parked: paced" {
		t.Errorf("got %v, want parked", err)
	}
	if st := c.cfg.Gates.HostState(other); st.Failures != 0 {
		t.Errorf("the host is blamed: %+v", st)
	}
	wantReason(t, <-done, outcome.ReasonTimeout)
	if _, err := page(t, c, other); err != nil {
		t.Errorf("with room: %v", err)
	}
}

func TestAMachineIsCountedOnceHoweverManyAddressesItHas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		one, other string
		same       bool
	}{
		"v4":                 {"1.1.1.1", "1.1.1.2", false},
		"v4 mapped":          {"1.1.1.1", "::ffff:1.1.1.1", true},
		"in one /64":         {"2606:4700:1:2::1", "2606:4700:1:2:ffff:ffff:ffff:ffff", true},
		"in another /64":     {"2606:4700:1:2::1", "2606:4700:1:3::1", false},
		"with a zone":        {"fe80::1%eth0", "fe80::2", true},
		"mapped, of two v4s": {"::ffff:1.1.1.1", "::ffff:1.1.1.2", false},
	} {
		one, other := limitedAddress(netip.MustParseAddr(c.one)), limitedAddress(netip.MustParseAddr(c.other))
		if (one == other) != c.same {
			t.Errorf("%s: %s counts as %s, %s as %s", name, c.one, one, c.other, other)
		}
	}
}

func TestADeadAddressLeavesNoPlaceTaken(t *testing.T) {
	t.Parallel()
	dead, _ := hosttest.Nobody(t)
	c := newClient(t, Config{PerAddress: 1}, limits{})
	for range 3 {
		_, err := page(t, c, dead)
		wantReason(t, err, outcome.ReasonConnect)
	}
	if n := connsTo(c); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}
