package network

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestBreakerOpensAfterFiveDifferentRepos(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := testGate(8, 8)
	for range 20 { // one repo that breaks its host is not a dead host
		g.failure(now, "did:plc:a", false, errTooSlow)
	}
	if st := g.breaker.state(); st.Down || st.Failures != 1 {
		t.Fatalf("one repo alone: %+v", st)
	}
	for _, repo := range []string{"b", "c", "d"} {
		g.failure(now, repo, false, errTooSlow)
	}
	g.alive()
	for i, repo := range []string{"a", "b", "c", "d", "e"} {
		if st := g.breaker.state(); st.Down || st.Failures != i {
			t.Fatalf("after an answer and %d failures: %+v", i, st)
		}
		g.failure(now, repo, false, errTooSlow)
	}
	st := g.breaker.state()
	if !st.Down || st.Failures != 5 || !st.NextProbe.Equal(now.Add(10*time.Second)) || !errors.Is(st.LastErr, errTooSlow) {
		t.Fatalf("after five in a row: %+v", st)
	}
}

func TestBreakerLetsOneProbePassAndWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := testGate(8, 8)
		for _, repo := range []string{"a", "b", "c", "d", "e"} {
			g.failure(time.Now(), repo, false, errTooSlow)
		}
		for i, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || p.Why != WhyDown || !p.Until.Equal(time.Now().Add(wait)) {
				t.Fatalf("probe %d: got %v, want parked for %s", i, p, wait)
			}
			<-time.After(wait)
			probe, err := g.enter(t.Context(), laneOrdinary, time.Now)
			if err != nil || !probe {
				t.Fatalf("probe %d: %v, %v", i, probe, err)
			}
			if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || p.Why != WhyDown {
				t.Fatalf("beside probe %d: got %v, want parked", i, p)
			}
			g.failure(time.Now(), "f", probe, errTooSlow)
			g.leave()
			if st := g.breaker.state(); st.Probes != i+1 {
				t.Fatalf("after probe %d: %+v", i, st)
			}
		}
		<-time.After(time.Minute)
		if err := pass(t, g); err != nil { // a probe whose caller went away
			t.Fatal(err)
		}
		if probe, err := g.enter(t.Context(), laneOrdinary, time.Now); err != nil || !probe {
			t.Fatalf("the next probe: %v, %v", probe, err)
		}
		g.alive()
		g.leave()
		if err := pass(t, g); err != nil || g.breaker.state() != (HostState{}) {
			t.Fatalf("after an answer: %v, %+v", err, g.breaker.state())
		}
	})
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
			wantReason(t, err, ReasonHTTP5xx)
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
