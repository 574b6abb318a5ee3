package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/network/polite/politetest"
	"appview/internal/network/repo/repotest"
	"appview/internal/network/transport"
)

func TestNothingIsSentBetweenA429AndTheEndOfItsPause(t *testing.T) {
	t.Parallel()
	const pause, onTheWire = 2 * time.Second, 250 * time.Millisecond
	var requests atomic.Int32
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%40 == 0 {
			hosttest.Says(429, "text/html", "<h1>slow down</h1>", "Retry-After", "2")(w, r)
			return
		}
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	})
	c := newClient(t, Config{HostRPS: 2000, PerHost: 16})
	var mu sync.Mutex
	var sent []time.Time
	pauses := map[time.Time]bool{} // their ends
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, time.Now())
	}})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := c.ListRecords(ctx, host, alice, status, "")
				p, ok := errors.AsType[*Parked](err)
				if !ok {
					continue
				}
				mu.Lock()
				pauses[p.Until] = true
				mu.Unlock()
				select {
				case <-time.After(time.Until(p.Until)):
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	if len(pauses) < 2 || len(sent) < 80 {
		t.Fatalf("the test tests nothing: %d requests, %d pauses", len(sent), len(pauses))
	}
	for end := range pauses {
		for _, at := range sent {
			if at.After(end.Add(onTheWire-pause)) && at.Before(end) {
				t.Errorf("a request was sent %s before the end of a pause", end.Sub(at))
			}
		}
	}
}

func TestAPauseBeginsWithTheHeader(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	heard := make(chan struct{})
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte("slo"))
		_ = http.NewResponseController(w).Flush()
		close(heard)
		hosttest.Silent(w, r) // and never ends the body
	})
	c := newClient(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() {
		_, err := c.ListRecords(ctx, host, alice, status, "")
		first <- err
	}()
	<-heard
	select {
	case err := <-first:
		if reasonOf(err) != "parked: rate_limited" {
			t.Fatalf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the caller waits for a body that nobody needs")
	}
	if _, err := page(t, c, host); reasonOf(err) != "parked: rate_limited" || requests.Load() != 1 {
		t.Errorf("got %v after %d requests", err, requests.Load())
	}
}

func TestWhatARedirectMeetsIsNotHeldAgainstTheHost(t *testing.T) {
	t.Parallel()
	var web, api atomic.Int32
	victim := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			web.Add(1)
			hosttest.Says(200, "text/html", "<h1>welcome</h1>")(w, r)
			return
		}
		api.Add(1)
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	})
	attacker := hosttest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", string(victim)+"/")
		w.WriteHeader(http.StatusFound)
	})
	c := newClient(t, Config{})
	for i := range 20 {
		_, err := c.ListRecords(t.Context(), attacker, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		if p, ok := errors.AsType[*Parked](err); ok && p.Host == victim && p.Why == polite.WhyDown {
			continue // to redirects
		}
		wantReason(t, err, outcome.ReasonBadAnswer)
	}
	if n := web.Load(); n != breakerTrips {
		t.Errorf("%d requests were sent on, want %d", n, breakerTrips)
	}
	if st := c.HostState(victim); st != (polite.HostState{}) {
		t.Errorf("the victim is blamed: %+v", st)
	}
	if _, err := page(t, c, victim); err != nil || api.Load() != 1 {
		t.Errorf("the victim, asked itself: %v", err)
	}
}

func TestAHostWithoutGetRepoIsAskedForEverythingElse(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/xrpc/"+methodGetRepo {
			hosttest.Says(504, "text/html", "<h1>gateway timeout</h1>")(w, r)
			return
		}
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
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
	plc := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/xrpc/") {
			hosttest.Says(403, "text/html", "Cannot GET "+r.URL.Path)(w, r)
			return
		}
		hosttest.Says(200, "application/json", document(alice.String(), pdsService("#atproto_pds", "http://127.0.0.1:1"), ""))(w, r)
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
	c := newClient(t, Config{})
	const name = "plc.example.com"
	want, err := c.findDocument("did:web:" + name)
	if err != nil || want.Circuit != polite.CircuitService {
		t.Fatal(want, err)
	}
	for i := range name {
		q, err := c.findDocument(syntax.DID("did:web:" + name[:i] + strings.ToUpper(name[i:])))
		if err != nil || q.Question != want.Question {
			t.Errorf("%+v, want %+v: %v", q.Question, want.Question, err)
		}
	}
}

func TestADeadHostCostsAFewRequests(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	var healthy atomic.Bool
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if healthy.Load() {
			hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
			return
		}
		hosttest.Says(502, "text/html", "<h1>bad gateway</h1>")(w, r)
	})
	c := newClient(t, Config{Timing: Timing{Probe: 50 * time.Millisecond, MaxProbe: 50 * time.Millisecond}})
	parked := 0
	for i := range 500 {
		_, err := c.ListRecords(t.Context(), host, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		switch p, ok := errors.AsType[*Parked](err); {
		case ok && p.Why == polite.WhyDown:
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
	if st := c.HostState(host); st != (polite.HostState{}) {
		t.Fatalf("after it came back: %+v", st)
	}
}

func askEach(t *testing.T, c *Client, hosts []Host, times int) (network, other int) {
	t.Helper()
	for i := range times {
		host := hosts[i%len(hosts)]
		_, err := c.ListRecords(t.Context(), host, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
		if p, ok := errors.AsType[*Parked](err); ok && p.Why == polite.WhyNetwork && p.Host == host {
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
		h, address := hosttest.Nobody(t)
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
	ln, err := hosttest.Listen(t, back)
	if err != nil {
		t.Skipf("the port is taken: %v", err)
	}
	server := &http.Server{Handler: hosttest.Says(200, "application/json", `{"records":[]}`)} //nolint:gosec // a test's
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
	relay := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"repos":[]}`))
	var hosts []Host
	for range 6 {
		h, _ := hosttest.Nobody(t)
		hosts = append(hosts, h)
	}
	c := newClient(t, Config{Relay: string(relay), Timing: Timing{Probe: time.Microsecond, MaxProbe: time.Microsecond}})
	if network, _ := askEach(t, c, hosts, 100); network != 0 || c.Outage() {
		t.Fatalf("%d calls blamed our network, outage %v, although the relay is there", network, c.Outage())
	}
}

// aFewDIDs are different repos, enough to open a breaker.
func aFewDIDs() (dids []syntax.DID) {
	for i := range breakerTrips {
		dids = append(dids, syntax.DID(fmt.Sprintf("did:plc:%024d", i)))
	}
	return dids
}

// TestPausesOutliveTheProcess has hosts ask to be left alone in every way there is, and
// the next process be told.
func TestPausesOutliveTheProcess(t *testing.T) {
	t.Parallel()
	soon := fmt.Sprint(300)
	records := func(c *Client, h Host) error { return only(c.ListRecords(t.Context(), h, alice, status, "")) }
	for name, k := range map[string]struct {
		answer http.HandlerFunc
		ask    func(c *Client, h Host) error
		least  time.Duration // that is left
		most   time.Duration
		cfg    func(cfg *Config, h Host)
	}{
		"429 with Retry-After": {hosttest.Says(429, "text/plain", "", "Retry-After", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"503 with Retry-After": {hosttest.Says(503, "text/plain", "", "Retry-After", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"429 without a word":   {hosttest.Says(429, "text/html", "<html>"), records, 29 * time.Second, time.Minute, nil},
		"429 for two days":     {hosttest.Says(429, "text/plain", "", "Retry-After", "172800"), records, 59 * time.Minute, time.Hour, nil},
		"a spent quota":        {hosttest.Says(200, "application/json", `{"records":[]}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"a spent quota of getRepo": {hosttest.Says(404, "application/json", `{}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), func(c *Client, h Host) error {
			return only(c.call429(t.Context(), h))
		}, 290 * time.Second, 300 * time.Second, nil},
		"an open breaker": {hosttest.Says(502, "text/html", "<html>"), func(c *Client, h Host) (err error) {
			for _, did := range append(aFewDIDs(), alice) {
				err = only(c.ListRecords(t.Context(), h, did, status, ""))
			}
			return err
		}, 5 * time.Second, 10 * time.Second, nil},
		"the relay, with 429": {hosttest.Says(429, "text/plain", "", "Retry-After", soon), func(c *Client, _ Host) error {
			return only(c.Repos(t.Context(), ""))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.Relay = string(h) }},
		"the relay's spent quota": {hosttest.Says(200, "application/json", `{"repos":[]}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), func(c *Client, _ Host) error {
			return only(c.Repos(t.Context(), ""))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.Relay = string(h) }},
		"the directory, with 429": {hosttest.Says(429, "text/plain", "", "Retry-After", soon), func(c *Client, _ Host) error {
			return only(c.Lookup(t.Context(), alice))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.PLC = string(h) }},
		"the directory, set aside": {hosttest.Says(200, "text/plain", ""), func(c *Client, _ Host) error {
			c.SetAside(c.PLC(), 2*time.Minute, "it is away")
			return only(c.Lookup(t.Context(), alice))
		}, 110 * time.Second, 120 * time.Second, func(cfg *Config, h Host) { cfg.PLC = string(h) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			h := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); k.answer(w, r) })
			cfg := Config{}
			if k.cfg != nil {
				k.cfg(&cfg, h)
			}
			for name, moved := range map[string]time.Duration{"": 0, "clock set back": -24 * time.Hour, "after two seconds": 2 * time.Second} {
				first := newClient(t, cfg)
				n := &politetest.Notes{}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); first.PersistPauses(ctx, n.Save) }()
				_ = k.ask(first, h)
				awaitThat(t, "something is remembered within a second", time.Second, func() bool { return len(n.All()) == 1 })
				_ = only(first.ListRecords(t.Context(), h, alice, status, "")) // whatever else goes on
				cancel()
				<-ended
				later := cfg
				later.Now = func() time.Time { return time.Now().Add(moved) }
				second := newClient(t, later)
				second.Resume(n.All())
				asked.Store(0)
				err := k.ask(second, h)
				p, ok := errors.AsType[*Parked](err)
				if !ok || asked.Load() != 0 {
					t.Errorf("%s: the next process asks %d times: %v", name, asked.Load(), err)
					continue
				}
				if left := p.Until.Sub(second.cfg.Now()); left > k.most || left < k.least-2*time.Second {
					t.Errorf("%s: it waits for %s, not %s to %s", name, left, k.least, k.most)
				}
				if p.Answer == "" {
					t.Errorf("%s: nothing says why: %+v", name, p)
				}
			}
			later := cfg
			later.Now = func() time.Time { return time.Now().Add(time.Hour) }
			n := &politetest.Notes{}
			first := newClient(t, cfg)
			_ = k.ask(first, h)
			if err := first.SavePauses(t.Context(), n.Save); err != nil {
				t.Fatal(err)
			}
			second := newClient(t, later)
			second.Resume(n.All())
			if _, parked := second.ParkedUntil(h); parked || second.DirectoryParked() && k.cfg != nil {
				t.Error("it waits when it is over")
			}
			if err := second.SavePauses(t.Context(), n.Save); err != nil || len(n.All()) != 0 {
				t.Errorf("%d rows of what is over, %v", len(n.All()), err)
			}
		})
	}
}

// only is the error of a call.
func only[T any](_ T, err error) error { return err }

// call429 asks in the scope of getRepo.
func (c *Client) call429(ctx context.Context, h Host) (*transport.Answer, error) {
	return c.fetch(ctx, repoRequest(h, "did:plc:x", 1<<10))
}

func awaitThat(t *testing.T, what string, within time.Duration, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(within); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestLargeBodiesShareTheBudgetAndGiveItBack(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	host := hosttest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"records":[],"pad":"`+repeat("x", size)+`"}`)
	})
	c := newClient(t, Config{PerHost: 32})
	c.bodies = polite.NewBudget(maxPageBody+2<<20, maxPageBody) // less than one body beside the reserve
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := page(t, c, host); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := c.Held(); n != 0 {
		t.Fatalf("%d bytes were not given back", n)
	}
}

func TestWhatBodiesHoldIsKnown(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	c.bodies, c.repos = polite.NewBudget(30, 20), polite.NewBudget(30, 20)
	page, repo := c.bodies.Grant(), c.repos.Grant()
	for _, g := range []*polite.Grant{&page, &repo} {
		for range 3 { // past the pool, and again of the reserve
			if err := g.Grow(t.Context(), 6); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := c.Held(); got != 36 {
		t.Errorf("%d bytes are held, want 36", got)
	}
	page.Release()
	page.Release()
	if got := c.Held(); got != 18 {
		t.Errorf("%d bytes are held, want 18", got)
	}
	repo.Release()
	if got := c.Held(); got != 0 {
		t.Errorf("%d bytes are held, want none", got)
	}
}
