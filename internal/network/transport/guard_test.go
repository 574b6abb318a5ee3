package transport

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/sandbox/sandboxtest"
)

func TestNoConnectionLeavesForAPrivateAddress(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := hosttest.Listen(t, on)
		if err != nil {
			t.Logf("no listener on %s here: %v", on, err)
			continue
		}
		var accepted atomic.Int32
		server := &http.Server{ConnState: func(net.Conn, http.ConnState) { accepted.Add(1) }} //nolint:gosec // nothing reaches it
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(ln)
		}()
		t.Cleanup(func() {
			_ = server.Close()
			<-done
		})
		strict := newGuardedClient(t, Config{}, limits{})
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		// Past ParseHost, as a name would be that changes its mind: what counts is the dial.
		for _, host := range []polite.Host{polite.Host("http://" + ln.Addr().String()), polite.Host("http://localhost:" + port), polite.Host("https://localhost:" + port)} {
			_, err := page(t, strict, host)
			wantReason(t, err, outcome.ReasonRefusedAddress)
			if st := strict.cfg.Gates.HostState(host); st.Failures != 0 {
				t.Errorf("%s: our refusal counts as %d failures of the host", host, st.Failures)
			}
		}
		if n := accepted.Load(); n != 0 {
			t.Errorf("%s: %d connections came through", on, n)
		}
	}
}

// TestNoConnectionLeavesForANameOfAPrivateAddress has a name server that gives
// private addresses in every form. To show that the guard is what holds them back,
// the same names are asked with the guard open.
func TestNoConnectionLeavesForANameOfAPrivateAddress(t *testing.T) {
	t.Parallel()
	addresses := map[string][]string{
		"loopback.test": {"127.0.0.1"}, "loopback6.test": {"::1"}, "mapped.test": {"::ffff:127.0.0.1"}, "nowhere.test": {"0.0.0.0"},
		"ten.test": {"10.1.2.3"}, "home.test": {"192.168.1.1"}, "metadata.test": {"169.254.169.254"}, "linklocal.test": {"fe80::1"},
		"local6.test": {"fd00::1"}, "nat64.test": {"64:ff9b::7f00:1"}, "sixtofour.test": {"2002:7f00:1::1"}, "shared.test": {"100.64.0.1"},
		"group.test": {"224.0.0.1"}, "group6.test": {"ff02::1"}, "broadcast.test": {"255.255.255.255"},
		"several.test": {"127.0.0.1", "10.1.2.3", "::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"},
	}
	names := sandboxtest.Resolver(t, func(name string) (all []netip.Addr) {
		for _, a := range addresses[name] {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	})
	var reached atomic.Int32
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(string(host), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	strict := newGuardedClient(t, Config{Resolver: names}, limits{})
	for name := range addresses {
		for _, host := range []polite.Host{polite.Host("https://" + name), polite.Host("http://" + name), polite.Host("http://" + name + ":" + port)} {
			_, err := page(t, strict, host)
			wantReason(t, err, outcome.ReasonRefusedAddress)
			if st := strict.cfg.Gates.HostState(host); st.Failures != 0 {
				t.Errorf("%s: our refusal counts as %d failures of the host", host, st.Failures)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections came through", n)
	}
	open := newClient(t, Config{Resolver: names}, limits{})
	for _, name := range []string{"loopback.test", "mapped.test"} {
		if _, err := page(t, open, polite.Host("http://"+name+":"+port)); err != nil {
			t.Errorf("%s with the guard open: %v", name, err)
		}
	}
	_, err = page(t, open, "http://unknown.test")
	wantReason(t, err, outcome.ReasonDNS)
}

func TestGuardAllowsOnlyWebPorts(t *testing.T) {
	t.Parallel()
	g := newGuard(Config{PerAddress: 1})
	defer g.close()
	for address, ok := range map[string]bool{
		"1.1.1.1:443": true, "1.1.1.1:80": true, "1.1.1.1:22": false, "1.1.1.1:8443": false, "127.0.0.1:443": false,
		"[::1]:443": false, "[2606:4700:4700::1111]:443": true, "[fe80::1%eth0]:443": false, "nonsense": false,
	} {
		if err := g.check(t.Context(), "tcp4", address, nil); (err == nil) != ok || err != nil && !errors.Is(err, errNotPublic) {
			t.Errorf("%s: %v, want allowed %v", address, err, ok)
		}
	}
	if err := g.check(t.Context(), "udp4", "1.1.1.1:443", nil); !errors.Is(err, errNotPublic) {
		t.Errorf("udp: %v", err)
	}
}

func TestProxyVariablesAreIgnored(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	host := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	if _, err := page(t, newClient(t, Config{}, limits{}), host); err != nil {
		t.Fatal(err)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	end := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	})
	to := func(location string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		}
	}
	c := newClient(t, Config{}, limits{})
	hop := end
	for i := range 4 {
		_, err := page(t, c, hop)
		if i <= 3 && err != nil {
			t.Fatalf("%d redirects: %v", i, err)
		}
		hop = hosttest.Serve(t, to(string(hop)+"/next?a=b"))
	}
	if n := reached.Load(); n != 4 {
		t.Fatalf("the end was reached %d times, want 4", n)
	}
	_, err := page(t, c, hop)
	wantReason(t, err, outcome.ReasonBadAnswer)
	_, err = page(t, c, hosttest.Serve(t, to("/again")))
	wantReason(t, err, outcome.ReasonBadAnswer)
	_, err = page(t, c, hosttest.Serve(t, to("http://user@127.0.0.1/")))
	wantReason(t, err, outcome.ReasonBadEndpoint)
	_, err = page(t, c, hosttest.Serve(t, to("file:///etc/passwd")))
	wantReason(t, err, outcome.ReasonBadEndpoint)
}

func TestRedirectsObeyTheRulesForHosts(t *testing.T) {
	t.Parallel()
	strict := newGuardedClient(t, Config{}, limits{})
	from := Request{Question: polite.Question{Op: "ask", Host: "https://pds.example.com"}, Target: "/xrpc/a?b=c"}
	for location, want := range map[string]string{
		"https://127.0.0.1/x":          "refused_address",
		"https://[::1]/x":              "refused_address",
		"https://localhost/x":          "refused_address",
		"http://other.example.com/x":   "refused_address", // leaves https
		"//169.254.169.254/meta":       "refused_address",
		"https://other.example.com:22": "bad_endpoint",
		"https://u@other.example.com":  "bad_endpoint",
		"https://other.example.com/x":  "https://other.example.com/x",
		"/y?d=e":                       "https://pds.example.com/y?d=e",
		"y":                            "https://pds.example.com/xrpc/y",
		"https://%zz":                  "bad_answer",
	} {
		q, err := strict.redirect(from, location)
		got := string(q.Host) + q.Target
		if err != nil {
			got = reasonOf(err)
		}
		if got != want {
			t.Errorf("redirect to %s: got %s, want %s", location, got, want)
		}
	}
}

// What other hosts send us to the directory for would come out of the rate at which
// accounts are looked up.
func TestNobodySendsUsToTheDirectory(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	plc := hosttest.Serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	c := newClient(t, Config{}, limits{Services: []polite.Host{plc}})
	_, err := page(t, c, hosttest.Serve(t, hosttest.Says(302, "text/plain", "", "Location", string(plc)+"/x")))
	wantReason(t, err, outcome.ReasonBadAnswer)
	if n := asked.Load(); n != 0 {
		t.Errorf("the directory was asked %d times", n)
	}
}
