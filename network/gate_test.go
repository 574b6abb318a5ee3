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
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func testGate(rps float64, inFlight int) *gate {
	return newGate("https://pds.example.com", rps, inFlight, breaker{first: 10 * time.Second, longest: time.Minute})
}

// pass goes through the gate and leaves at once.
func pass(t *testing.T, g *gate) error {
	t.Helper()
	let, err := g.enter(t.Context(), call{}, time.Now)
	if err == nil {
		let.abandon()
		g.leave()
	}
	return err
}

func TestGatePacesRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		start := time.Now()
		var wg sync.WaitGroup
		for range 42 {
			wg.Go(func() {
				if err := pass(t, g); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 4900*time.Millisecond || took > 5100*time.Millisecond {
			t.Fatalf("42 requests at 8 a second with a burst of 2 took %s, want 5s", took)
		}
	})
}

func TestGateHoldsTheInFlightCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(1000, 3)
		var mu sync.Mutex
		var inside, most int
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				if _, err := g.enter(t.Context(), call{}, time.Now); err != nil {
					t.Error(err)
					return
				}
				defer g.leave()
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				<-time.After(time.Second)
				mu.Lock()
				inside--
				mu.Unlock()
			})
		}
		wg.Wait()
		if most != 3 {
			t.Fatalf("%d in flight, want 3", most)
		}
	})
}

func TestGatePausesAndParks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 2)
		for range 2 { // both slots taken, and a third call queues
			if _, err := g.enter(t.Context(), call{}, time.Now); err != nil {
				t.Fatal(err)
			}
		}
		queued := make(chan error)
		go func() { queued <- pass(t, g) }()
		synctest.Wait()
		now := time.Now()
		p := g.refused(now, 40*time.Second, time.Hour)
		if !p.Until.Equal(now.Add(40 * time.Second)) {
			t.Fatalf("parked until %s", p.Until)
		}
		// The queued call hears of it at once, and so does a new one.
		for _, err := range []error{<-queued, pass(t, g)} {
			got, ok := errors.AsType[*Parked](err)
			if !ok || !got.Until.Equal(p.Until) || got.Why != WhyRateLimited || got.Host != g.host || time.Since(now) != 0 {
				t.Fatalf("got %v after %s, want parked", err, time.Since(now))
			}
		}
		g.leave()
		g.leave()
		// A shorter wish does not shorten a pause.
		_ = g.refused(now, time.Second, time.Hour)
		<-time.After(39500 * time.Millisecond)
		if !g.silent(laneOrdinary, time.Now()) {
			t.Fatal("the pause ended early")
		}
		if err := pass(t, g); err != nil { // the rest is a short wait
			t.Fatal(err)
		}
		if waited := time.Since(now); waited < 40*time.Second || waited > 41*time.Second {
			t.Fatalf("first request after %s", waited)
		}
	})
}

func TestDefaultPauseIsJittered(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	now := time.Now()
	for range 50 {
		d := testGate(8, 1).refused(now, 0, 30*time.Second).Until.Sub(now)
		if d < 30*time.Second || d >= time.Minute {
			t.Fatalf("pause of %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 10 {
		t.Fatalf("only %d different pauses", len(seen))
	}
}

func TestGateSlowsDownToAQuotaAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		g.answered(laneOrdinary, time.Now(), quota{known: true, remaining: 20, reset: 10 * time.Second})
		start := time.Now()
		for range 12 {
			if err := pass(t, g); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 4500*time.Millisecond || took > 5500*time.Millisecond {
			t.Fatalf("12 requests at 2 a second took %s", took)
		}
		// Where the next turn is far away, callers are sent away.
		g.answered(laneOrdinary, time.Now(), quota{known: true, remaining: 1, reset: time.Minute})
		err := pass(t, g)
		for err == nil { // the burst
			err = pass(t, g)
		}
		if p, ok := errors.AsType[*Parked](err); !ok || p.Why != WhyPaced || !p.Until.After(time.Now().Add(shortWait)) {
			t.Fatalf("got %v, want paced", err)
		}
		<-time.After(time.Minute)
		start = time.Now()
		for range 18 {
			if err := pass(t, g); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 2500*time.Millisecond {
			t.Fatalf("18 requests after the quota was full again took %s", took)
		}
		// An empty quota is a pause.
		now := time.Now()
		g.answered(laneOrdinary, now, quota{known: true, remaining: 0, reset: 7 * time.Second})
		if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || !p.Until.Equal(now.Add(7*time.Second)) {
			t.Fatalf("got %v, want parked for 7s", p)
		}
	})
}

func TestGateBacksOffOnceForEachRefusalAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		for range 8 { // what was in flight comes back refused, all of it
			_ = g.refused(time.Now(), 5*time.Second, time.Hour)
		}
		if g.backoff != 4 {
			t.Fatalf("%v requests a second, want 4", g.backoff)
		}
		for range 20 {
			<-time.After(6 * time.Second)
			g.answered(laneOrdinary, time.Now(), quota{})
		}
		if g.backoff != 8 {
			t.Fatalf("%v requests a second after two quiet minutes, want 8", g.backoff)
		}
	})
}

func TestNothingIsSentBetweenA429AndTheEndOfItsPause(t *testing.T) {
	t.Parallel()
	const pause, onTheWire = 2 * time.Second, 250 * time.Millisecond
	var requests atomic.Int32
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%40 == 0 {
			says(429, "text/html", "<h1>slow down</h1>", "Retry-After", "2")(w, r)
			return
		}
		says(200, "application/json", `{"records":[]}`)(w, r)
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
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte("slo"))
		_ = http.NewResponseController(w).Flush()
		close(heard)
		silent(w, r) // and never ends the body
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

func TestAPauseOfMoreThanAnHourIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 2)
		asked := func() time.Duration {
			if g.asked.IsZero() {
				return 0
			}
			return time.Until(g.asked)
		}
		p := g.refused(time.Now(), 48*time.Hour, time.Minute)
		if d := time.Until(p.Until); d != maxPause || asked() != 48*time.Hour {
			t.Errorf("parked for %s, asked for %s", d, asked())
		}
		g.answered(laneOrdinary, time.Now(), quota{}) // what was in flight comes in
		_ = g.refused(time.Now(), time.Minute, time.Minute)
		if asked() != 48*time.Hour {
			t.Errorf("forgotten at once: %s", asked())
		}
		<-time.After(maxPause + time.Second)
		_ = g.refused(time.Now(), time.Minute, time.Minute)
		if asked() != 0 {
			t.Errorf("the next refusal asked for a minute, not for %s", asked())
		}
	})
}

func TestAConnectionThatTookLongDoesNotSendIntoAPause(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		says(200, "application/json", `{"records":[]}`)(w, r)
	})
	c := newClient(t, Config{})
	g := c.gates.take(host, time.Now())
	dial := c.transport.DialContext
	c.transport.DialContext = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		conn, err = dial(ctx, network, address)
		_ = g.refused(time.Now(), time.Minute, time.Hour) // as if another request had just heard it
		return conn, err
	}
	_, err := page(t, c, host)
	if p, ok := errors.AsType[*Parked](err); !ok || p.Why != WhyRateLimited {
		t.Fatalf("got %v, want parked", err)
	}
	if n := requests.Load(); n != 0 {
		t.Fatalf("%d requests were sent", n)
	}
	if until, parked := c.ParkedUntil(host); !parked || time.Until(until) < 50*time.Second {
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
	c := newClient(t, Config{})
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	c.transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	first := make(chan error, 1)
	go func() {
		_, err := c.ListRecords(t.Context(), Host(s.URL), alice, status, "")
		first <- err
	}()
	<-begun
	g := c.gates.look(Host(s.URL))
	_ = g.refused(time.Now(), time.Minute, time.Hour) // as if a third request had just heard it
	_, err := c.send(t.Context(), g, call{op: methodListRecords, host: Host(s.URL), target: "/xrpc/" + methodListRecords, limit: maxPageBody})
	if !errors.Is(err, errSilenced) {
		t.Errorf("got %v, want %v", err, errSilenced)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestIdleGatesAreForgotten(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	now := time.Now()
	for _, h := range []Host{"https://idle.example", "https://paused.example", "https://busy.example", "https://dead.example"} {
		c.gates.take(h, now)
	}
	for h, g := range c.gates.all {
		if h != "https://busy.example" {
			c.gates.give(g, now)
		}
	}
	_ = c.gates.all["https://paused.example"].refused(now, maxPause, time.Hour)
	for _, repo := range []string{"a", "b", "c", "d", "e"} {
		unanswered(c.gates.all["https://dead.example"], now, repo)
	}
	c.gates.take("https://other.example", now.Add(gateIdle+gateSweep))
	for h, want := range map[Host]bool{"https://idle.example": false, "https://paused.example": true, "https://busy.example": true, "https://dead.example": true} {
		if got := c.gates.look(h) != nil; got != want {
			t.Errorf("%s: kept %v, want %v", h, got, want)
		}
	}
	c.gates.take("https://more.example", now.Add(2*deadGate))
	if c.gates.look("https://dead.example") != nil || c.gates.look("https://paused.example") != nil {
		t.Error("old gates are kept for ever")
	}
}

// Names cost nothing. Whoever makes them up must not fill our memory, nor have us
// forget who else asked for silence.
func TestGatesAreBounded(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	now := time.Now()
	polite, busy := c.gates.take("https://polite.example", now), c.gates.take("https://busy.example", now)
	_ = polite.refused(now, 5*time.Minute, time.Hour)
	c.gates.give(polite, now)
	for i := range 2 * maxGates {
		g := c.gates.take(Host(fmt.Sprintf("https://x%d.example", i)), now)
		if i%2 == 0 {
			_ = g.refused(now, maxPause, time.Hour)
		}
		c.gates.give(g, now)
		if n := len(c.gates.all); n > maxGates {
			t.Fatalf("%d gates", n)
		}
		now = now.Add(time.Millisecond)
	}
	if c.gates.look("https://polite.example") != polite || c.gates.look("https://busy.example") != busy {
		t.Error("a gate is forgotten that is needed")
	}
}
