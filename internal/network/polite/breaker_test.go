package polite

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// unanswered notes that a host has not answered about a repo.
func unanswered(g *gate, now time.Time, repo string) {
	(&Permit{gate: g, question: Question{Subject: repo}}).count(now, errSlow)
}

func TestBreakerOpensAfterFiveDifferentRepos(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := testGate(8, 8)
	for range 20 { // one repo that breaks its host is not a dead host
		unanswered(g, now, "did:plc:a")
	}
	if st := g.breakers[CircuitOrdinary].state(); st.Down || st.Failures != 1 {
		t.Fatalf("one repo alone: %+v", st)
	}
	for _, repo := range []string{"b", "c", "d"} {
		unanswered(g, now, repo)
	}
	(&Permit{gate: g}).Alive()
	for i, repo := range []string{"a", "b", "c", "d", "e"} {
		if st := g.breakers[CircuitOrdinary].state(); st.Down || st.Failures != i {
			t.Fatalf("after an answer and %d failures: %+v", i, st)
		}
		unanswered(g, now, repo)
	}
	st := g.breakers[CircuitOrdinary].state()
	if !st.Down || st.Failures != 5 || !st.NextProbe.Equal(now.Add(10*time.Second)) || !errors.Is(st.LastErr, errSlow) {
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
			probe, err := g.acquire(t.Context(), Question{}, time.Now)
			if err != nil || !probe {
				t.Fatalf("probe %d: %v, %v", i, probe, err)
			}
			if p, ok := errors.AsType[*Parked](pass(t, g)); !ok || p.Why != WhyDown {
				t.Fatalf("beside probe %d: got %v, want parked", i, p)
			}
			(&Permit{gate: g, question: Question{Subject: "f"}, probe: probe}).count(time.Now(), errSlow)
			g.release()
			if st := g.breakers[CircuitOrdinary].state(); st.Probes != i+1 {
				t.Fatalf("after probe %d: %+v", i, st)
			}
		}
		<-time.After(time.Minute)
		if err := pass(t, g); err != nil { // a probe whose caller went away
			t.Fatal(err)
		}
		probe, err := g.acquire(t.Context(), Question{}, time.Now)
		if err != nil || !probe {
			t.Fatalf("the next probe: %v, %v", probe, err)
		}
		(&Permit{gate: g, probe: probe}).Alive()
		g.release()
		if err := pass(t, g); err != nil || g.breakers[CircuitOrdinary].state() != (HostState{}) {
			t.Fatalf("after an answer: %v, %+v", err, g.breakers[CircuitOrdinary].state())
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
			q := Question{Op: op, Subject: repo}
			probe, err := g.acquire(t.Context(), q, time.Now)
			if err != nil {
				p, _ := errors.AsType[*Parked](err)
				return p
			}
			defer g.release()
			if p := (&Permit{gate: g, question: q, probe: probe}); answers {
				p.Alive()
			} else {
				p.count(time.Now(), errSlow)
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
			st := g.breakers[CircuitOrdinary].state()
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
			if st := g.breakers[CircuitOrdinary].state(); !st.Down || st.Probes != probe {
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
		if st := g.breakers[CircuitOrdinary].state(); st != (HostState{}) {
			t.Errorf("after it came back: %+v", st)
		}
	})
}
