package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network/outcome"
	"appview/network/repo/repotest"
)

// unanswered notes that a host has not answered about a repo.
func unanswered(g *gate, now time.Time, repo string) {
	passage{g: g}.failure(now, repo, errTooSlow)
}

func TestBreakerOpensAfterFiveDifferentRepos(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := testGate(8, 8)
	for range 20 { // one repo that breaks its host is not a dead host
		unanswered(g, now, "did:plc:a")
	}
	if st := g.breakers[wayOrdinary].state(); st.Down || st.Failures != 1 {
		t.Fatalf("one repo alone: %+v", st)
	}
	for _, repo := range []string{"b", "c", "d"} {
		unanswered(g, now, repo)
	}
	passage{g: g}.alive()
	for i, repo := range []string{"a", "b", "c", "d", "e"} {
		if st := g.breakers[wayOrdinary].state(); st.Down || st.Failures != i {
			t.Fatalf("after an answer and %d failures: %+v", i, st)
		}
		unanswered(g, now, repo)
	}
	st := g.breakers[wayOrdinary].state()
	if !st.Down || st.Failures != 5 || !st.NextProbe.Equal(now.Add(10*time.Second)) || !errors.Is(st.LastErr, errTooSlow) {
		t.Fatalf("after five in a row: %+v", st)
	}
}

func TestBreakerLetsOneProbePassAndWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		for _, repo := range []string{"a", "b", "c", "d", "e"} {
			unanswered(g, time.Now(), repo)
		}
		for i, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || p.Why != WhyDown || !p.Until.Equal(time.Now().Add(wait)) {
				t.Fatalf("probe %d: got %v, want parked for %s", i, p, wait)
			}
			<-time.After(wait)
			let, err := g.enter(t.Context(), call{}, time.Now)
			if err != nil || !let.probe {
				t.Fatalf("probe %d: %v, %v", i, let.probe, err)
			}
			if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || p.Why != WhyDown {
				t.Fatalf("beside probe %d: got %v, want parked", i, p)
			}
			let.failure(time.Now(), "f", errTooSlow)
			g.leave()
			if st := g.breakers[wayOrdinary].state(); st.Probes != i+1 {
				t.Fatalf("after probe %d: %+v", i, st)
			}
		}
		<-time.After(time.Minute)
		if err := pass(t, g); err != nil { // a probe whose caller went away
			t.Fatal(err)
		}
		let, err := g.enter(t.Context(), call{}, time.Now)
		if err != nil || !let.probe {
			t.Fatalf("the next probe: %v, %v", let.probe, err)
		}
		let.alive()
		g.leave()
		if err := pass(t, g); err != nil || g.breakers[wayOrdinary].state() != (HostState{}) {
			t.Fatalf("after an answer: %v, %+v", err, g.breakers[wayOrdinary].state())
		}
	})
}

// TestAHalfDeadHostIsSetAside has a host that answers one question at once and
// never another: that it answers the first does not close the breaker.
func TestAHalfDeadHostIsSetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		ask := func(op, repo string, answers bool) *Parked {
			t.Helper()
			let, err := g.enter(t.Context(), call{op: op}, time.Now)
			if err != nil {
				p, _ := errors.AsType[*Parked](err)
				return p
			}
			defer g.leave()
			if answers {
				let.alive()
			} else {
				let.failure(time.Now(), repo, errTooSlow)
			}
			return nil
		}
		for _, repo := range []string{"a", "b", "c", "d", "e"} {
			if p := ask("status", repo, true); p != nil {
				t.Fatal(p)
			}
			if p := ask("list", repo, false); p != nil {
				t.Fatal(p)
			}
		}
		for probe, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			st := g.breakers[wayOrdinary].state()
			if !st.Down || st.Probes != probe || !st.NextProbe.Equal(time.Now().Add(wait)) {
				t.Fatalf("after %d probes: %+v", probe, st)
			}
			if p := ask("status", "f", true); p == nil || p.Why != WhyDown {
				t.Fatalf("while it is down: %v", p)
			}
			<-time.After(wait)
			for range 3 { // these say nothing of what it is down for
				if p := ask("status", "f", true); p != nil {
					t.Fatalf("probe %d: %v", probe, p)
				}
			}
			if st := g.breakers[wayOrdinary].state(); !st.Down || st.Probes != probe {
				t.Fatalf("another question closed the breaker: %+v", st)
			}
			if p := ask("list", "f", false); p != nil {
				t.Fatalf("probe %d: %v", probe, p)
			}
		}
		<-time.After(time.Minute)
		for _, op := range []string{"status", "list", "status", "list"} {
			if p := ask(op, "f", true); p != nil {
				t.Fatal(p)
			}
		}
		if st := g.breakers[wayOrdinary].state(); st != (HostState{}) {
			t.Errorf("after it came back: %+v", st)
		}
	})
}

func TestWhatARedirectMeetsIsNotHeldAgainstTheHost(t *testing.T) {
	t.Parallel()
	var web, api atomic.Int32
	victim := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			web.Add(1)
			says(200, "text/html", "<h1>welcome</h1>")(w, r)
			return
		}
		api.Add(1)
		says(200, "application/json", `{"records":[]}`)(w, r)
	})
	attacker := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", string(victim)+"/")
		w.WriteHeader(http.StatusFound)
	})
	c := newClient(t, Config{})
	for i := range 20 {
		_, err := c.ListRecords(t.Context(), attacker, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		if p, ok := errors.AsType[*Parked](err); ok && p.Host == victim && p.Why == WhyDown {
			continue // to redirects
		}
		wantReason(t, err, outcome.ReasonBadAnswer)
	}
	if n := web.Load(); n != breakerTrips {
		t.Errorf("%d requests were sent on, want %d", n, breakerTrips)
	}
	if st := c.HostState(victim); st != (HostState{}) {
		t.Errorf("the victim is blamed: %+v", st)
	}
	if _, err := page(t, c, victim); err != nil || api.Load() != 1 {
		t.Errorf("the victim, asked itself: %v", err)
	}
}

func TestAHostWithoutGetRepoIsAskedForEverythingElse(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/xrpc/"+methodGetRepo {
			says(504, "text/html", "<h1>gateway timeout</h1>")(w, r)
			return
		}
		says(200, "application/json", `{"records":[]}`)(w, r)
	})
	c := newClient(t, Config{})
	for i := range 2 * breakerTrips {
		ident := identOf(m)
		ident.DID = syntax.DID(fmt.Sprintf("did:plc:%024d", i))
		_, err := c.Repo(t.Context(), host, ident)
		if want := map[bool]string{true: "http_5xx", false: "parked: down"}[i < breakerTrips]; reasonOf(err) != want {
			t.Errorf("repo %d: %v, want %s", i, err, want)
		}
	}
	if _, err := page(t, c, host); err != nil {
		t.Error(err)
	}
	if _, parked := c.RepoParkedUntil(host); !parked {
		t.Error("getRepo is not parked")
	}
	if until, parked := c.ParkedUntil(host); parked {
		t.Errorf("everything else is parked until %s", until)
	}
}

// Anybody can name the directory as the host of their repo. It has no such method,
// and says so in a web page.
func TestTheDirectoryIsNotSetAsideForWhatItIsNot(t *testing.T) {
	t.Parallel()
	plc := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/xrpc/") {
			says(403, "text/html", "Cannot GET "+r.URL.Path)(w, r)
			return
		}
		says(200, "application/json", document(alice.String(), pdsService("#atproto_pds", "http://127.0.0.1:1"), ""))(w, r)
	})
	c := newClient(t, Config{PLC: string(plc), Relay: string(plc)})
	for i := range 2 * breakerTrips {
		_, _ = c.RepoStatus(t.Context(), plc, syntax.DID(fmt.Sprintf("did:plc:%024d", i)))
	}
	if _, down := c.ParkedUntil(plc); !down {
		t.Fatal("as a host of repos it is not set aside: the test tests nothing")
	}
	if _, err := c.Lookup(t.Context(), alice); err != nil {
		t.Errorf("look-up: %v", err)
	}
	if _, err := c.Repos(t.Context(), ""); reasonOf(err) != string(outcome.ReasonBadAnswer) {
		t.Errorf("listing: %v, want what the host answers", err)
	}
}

// Nor for a document of its own that it does not have, however often that is spelled
// in another way.
func TestSpellingsOfAWebDIDAreOneToTheBreaker(t *testing.T) {
	t.Parallel()
	var strange atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/"+alice.String() {
			says(200, "application/json", document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), ""))(w, r)
			return
		}
		strange.Add(1)
		says(404, "text/html", "Cannot GET "+r.URL.Path)(w, r)
	}))
	t.Cleanup(s.Close)
	c := newClient(t, Config{PLC: "https://plc.example.com", Relay: "https://plc.example.com"})
	trust := x509.NewCertPool()
	trust.AddCert(s.Certificate())
	c.transport.TLSClientConfig = &tls.Config{RootCAs: trust, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	c.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.guard.dial(ctx, network, s.Listener.Addr().String())
	}
	const name = "plc.example.com"
	for i := range 2 * breakerTrips {
		_, err := c.Lookup(t.Context(), syntax.DID("did:web:"+name[:i]+strings.ToUpper(name[i:])))
		wantReason(t, err, outcome.ReasonNotFound)
	}
	if n := strange.Load(); n != 2*breakerTrips {
		t.Errorf("%d documents were asked for", n)
	}
	if _, err := c.Lookup(t.Context(), alice); err != nil {
		t.Errorf("look-up: %v", err)
	}
}

func TestADeadHostCostsAFewRequests(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	var healthy atomic.Bool
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if healthy.Load() {
			says(200, "application/json", `{"records":[]}`)(w, r)
			return
		}
		says(502, "text/html", "<h1>bad gateway</h1>")(w, r)
	})
	c := newClient(t, Config{Timing: Timing{Probe: 50 * time.Millisecond, MaxProbe: 50 * time.Millisecond}})
	parked := 0
	for i := range 500 {
		_, err := c.ListRecords(t.Context(), host, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		switch p, ok := errors.AsType[*Parked](err); {
		case ok && p.Why == WhyDown:
			parked++
		default:
			wantReason(t, err, outcome.ReasonHTTP5xx)
		}
		if parked == 1 {
			if until, ok := c.ParkedUntil(host); !ok || !until.Equal(c.HostState(host).NextProbe) {
				t.Fatalf("parked until %s, %v", until, ok)
			}
		}
	}
	if n := requests.Load(); n < 5 || n > 50 {
		t.Fatalf("%d requests for 500 repos", n)
	}
	healthy.Store(true)
	for {
		<-time.After(time.Until(c.HostState(host).NextProbe))
		if _, err := page(t, c, host); err == nil {
			break
		}
	}
	if st := c.HostState(host); st != (HostState{}) {
		t.Fatalf("after it came back: %+v", st)
	}
}
