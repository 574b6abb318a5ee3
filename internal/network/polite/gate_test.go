package polite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errSlow = errors.New("too slow")

// testGates are gates whose hosts may be asked as often as anybody likes.
func testGates() *Gates {
	return New(Config{
		Limits: func(Host) (float64, int) { return 100_000, 8 }, Pause: 30 * time.Second, Probe: 10 * time.Second, MaxProbe: time.Minute, OutageProbe: 15 * time.Second,
		Reach: func(context.Context, Host) bool { return true }, Services: []Host{testRelay}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

const testRelay = Host("https://relay.example.com")

func testGate(rps float64, inFlight int) *gate {
	return newGate("https://pds.example.com", rps, inFlight, breaker{first: 10 * time.Second, longest: time.Minute})
}

// pass goes through the gate and leaves at once.
func pass(t *testing.T, g *gate) error {
	t.Helper()
	probe, err := g.acquire(t.Context(), Question{}, time.Now)
	if err == nil {
		(&Permit{gate: g, probe: probe}).Abandon()
		g.release()
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
				if _, err := g.acquire(t.Context(), Question{}, time.Now); err != nil {
					t.Error(err)
					return
				}
				defer g.release()
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
			if _, err := g.acquire(t.Context(), Question{}, time.Now); err != nil {
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
		g.release()
		g.release()
		// A shorter wish does not shorten a pause.
		_ = g.refused(now, time.Second, time.Hour)
		<-time.After(39500 * time.Millisecond)
		if !g.isPaused(ScopeOrdinary, time.Now()) {
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
		g.recordAnswer(ScopeOrdinary, time.Now(), quota{known: true, remaining: 20, reset: 10 * time.Second})
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
		g.recordAnswer(ScopeOrdinary, time.Now(), quota{known: true, remaining: 1, reset: time.Minute})
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
		g.recordAnswer(ScopeOrdinary, now, quota{known: true, remaining: 0, reset: 7 * time.Second})
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
			g.recordAnswer(ScopeOrdinary, time.Now(), quota{})
		}
		if g.backoff != 8 {
			t.Fatalf("%v requests a second after two quiet minutes, want 8", g.backoff)
		}
	})
}

func TestAPauseOfMoreThanAnHourIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 2)
		asked := func() time.Duration {
			if g.requestedUntil.IsZero() {
				return 0
			}
			return time.Until(g.requestedUntil)
		}
		p := g.refused(time.Now(), 48*time.Hour, time.Minute)
		if d := time.Until(p.Until); d != maxPause || asked() != 48*time.Hour {
			t.Errorf("parked for %s, asked for %s", d, asked())
		}
		g.recordAnswer(ScopeOrdinary, time.Now(), quota{}) // what was in flight comes in
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

func TestIdleGatesAreForgotten(t *testing.T) {
	t.Parallel()
	gs := testGates()
	now := time.Now()
	for _, h := range []Host{"https://idle.example", "https://paused.example", "https://busy.example", "https://dead.example"} {
		gs.gates.retain(h, now)
	}
	for h, g := range gs.gates.all {
		if h != "https://busy.example" {
			gs.gates.release(g, now)
		}
	}
	_ = gs.gates.all["https://paused.example"].refused(now, maxPause, time.Hour)
	for _, repo := range []string{"a", "b", "c", "d", "e"} {
		unanswered(gs.gates.all["https://dead.example"], now, repo)
	}
	gs.gates.retain("https://other.example", now.Add(gateIdle+gateSweep))
	for h, want := range map[Host]bool{"https://idle.example": false, "https://paused.example": true, "https://busy.example": true, "https://dead.example": true} {
		if got := gs.gates.get(h) != nil; got != want {
			t.Errorf("%s: kept %v, want %v", h, got, want)
		}
	}
	gs.gates.retain("https://more.example", now.Add(2*deadGate))
	if gs.gates.get("https://dead.example") != nil || gs.gates.get("https://paused.example") != nil {
		t.Error("old gates are kept for ever")
	}
}

// Names cost nothing. Whoever makes them up must not fill our memory, nor have us
// forget who else asked for silence.
func TestGatesAreBounded(t *testing.T) {
	t.Parallel()
	gs := testGates()
	now := time.Now()
	polite, busy := gs.gates.retain("https://polite.example", now), gs.gates.retain("https://busy.example", now)
	_ = polite.refused(now, 5*time.Minute, time.Hour)
	gs.gates.release(polite, now)
	for i := range 2 * maxGates {
		g := gs.gates.retain(Host(fmt.Sprintf("https://x%d.example", i)), now)
		if i%2 == 0 {
			_ = g.refused(now, maxPause, time.Hour)
		}
		gs.gates.release(g, now)
		if n := len(gs.gates.all); n > maxGates {
			t.Fatalf("%d gates", n)
		}
		now = now.Add(time.Millisecond)
	}
	if gs.gates.get("https://polite.example") != polite || gs.gates.get("https://busy.example") != busy {
		t.Error("a gate is forgotten that is needed")
	}
}
