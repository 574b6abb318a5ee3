package polite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"appview/internal/network/polite/politetest"
)

// aFewRepos are different repos, enough to open a breaker.
func aFewRepos() []string { return []string{"a", "b", "c", "d", "e"} }

// TestHostThatAnswersAgainIsNotRemembered has a breaker close, and our own network be
// what had failed.
func TestHostThatAnswersAgainIsNotRemembered(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(gs *Gates, g *gate){
		"it answers":    func(_ *Gates, g *gate) { (&Permit{gate: g, question: Question{Op: "x"}, probe: true}).Alive() },
		"our own fault": func(gs *Gates, _ *gate) { gs.networkChanged(context.Background(), true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gs, n := testGates(), &politetest.Notes{}
			g := gs.gates.retain("https://pds.example", time.Now())
			for _, repo := range aFewRepos() {
				unanswered(g, time.Now(), repo)
			}
			if err := gs.SavePauses(t.Context(), n.Save); err != nil || len(n.All()) != 1 {
				t.Fatalf("%d rows, %v", len(n.All()), err)
			}
			end(gs, g)
			n.Fail(errors.New("no room"))
			if err := gs.SavePauses(t.Context(), n.Save); err == nil {
				t.Fatal("a failure is not told")
			}
			n.Fail(nil)
			if err := gs.SavePauses(t.Context(), n.Save); err != nil || len(n.All()) != 0 {
				t.Errorf("%d rows, %v", len(n.All()), err)
			}
			was := n.Saves()
			if err := gs.SavePauses(t.Context(), n.Save); err != nil || n.Saves() != was {
				t.Errorf("it is handed over again: %v", err)
			}
		})
	}
}

// TestRememberedPausesAreBounded has more hosts ask for silence than are remembered.
func TestRememberedPausesAreBounded(t *testing.T) {
	t.Parallel()
	gs, n := testGates(), &politetest.Notes{}
	for i := range maxPauses + 10 {
		g := gs.gates.retain(Host(fmt.Sprintf("https://x%d.example", i)), time.Now())
		_ = g.refused(time.Now(), maxPause, time.Hour)
		gs.gates.release(g, time.Now())
	}
	if err := gs.SavePauses(t.Context(), n.Save); err != nil || len(n.All()) != maxPauses {
		t.Fatalf("%d rows, %v", len(n.All()), err)
	}
	g := gs.gates.retain(testRelay, time.Now())
	_ = g.refused(time.Now(), time.Minute, time.Hour)
	if err := gs.SavePauses(t.Context(), n.Save); err != nil || n.All()[string(testRelay)] == nil {
		t.Errorf("the relay is forgotten for others: %v", err)
	}
	// What is no row of ours has nobody wait.
	second := testGates()
	second.Resume(map[string][]byte{"https://a.example": []byte("{"), "": []byte("{}"), "https://b.example": []byte(`{"noted":"2026-01-01T00:00:00Z","quotas":[{"lane":7,"left":1}],"down":[{"way":-1}]}`)})
	if n := len(second.gates.all); n != 0 {
		t.Errorf("%d hosts are to be left alone", n)
	}
}

// TestClockThatIsSetEndsNoPause sets the wall clock while the process runs, and ends it
// then: what is left is what was left by the running clock.
func TestClockThatIsSetEndsNoPause(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		gs, n := testGates(), &politetest.Notes{}
		var moved atomic.Int64
		gs.suspend.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(moved.Load())) }
		gs.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(moved.Load())) } // as after the jump
		g := gs.gates.retain("https://pds.example", time.Now())
		_ = g.refused(time.Now(), 5*time.Minute, time.Hour)
		if err := gs.SavePauses(t.Context(), n.Save); err != nil {
			t.Fatal(err)
		}
		moved.Store(int64(by))
		g.mu.Lock() // by the running clock nothing has passed
		g.until = g.until.Add(by)
		g.mu.Unlock()
		if err := gs.SavePauses(t.Context(), n.Save); err != nil {
			t.Fatal(err)
		}
		second := testGates()
		second.cfg.Now = func() time.Time { return time.Now().Add(by) }
		second.Resume(n.All())
		if until, parked := second.ParkedUntil("https://pds.example", ScopeOrdinary, CircuitOrdinary); !parked || until.Sub(second.cfg.Now()) < 4*time.Minute {
			t.Errorf("clock set by %s: parked %t until %s", by, parked, until)
		}
	}
}
