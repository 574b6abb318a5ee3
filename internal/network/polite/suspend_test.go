package polite

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// sleeper is a machine whose clocks a test moves.
type sleeper struct{ wall, ran atomic.Int64 }

func (s *sleeper) detector() *suspendDetector {
	begun := time.Unix(1_800_000_000, 0)
	return &suspendDetector{
		wall:  func() time.Time { return begun.Add(time.Duration(s.wall.Load())) },
		ran:   func() time.Duration { return time.Duration(s.ran.Load()) },
		begun: begun,
	}
}

func (s *sleeper) run(d time.Duration)   { s.wall.Add(int64(d)); s.ran.Add(int64(d)) }
func (s *sleeper) sleep(d time.Duration) { s.wall.Add(int64(d)) }

func TestJumpsOfTheClockAreNoticed(t *testing.T) {
	t.Parallel()
	var s sleeper
	j := s.detector()
	want := func(what string, count int, recent bool) {
		t.Helper()
		if n, r := j.check(); int(n) != count || r != recent {
			t.Errorf("%s: %d jumps, recent %v, want %d, %v", what, n, r, count, recent)
		}
	}
	want("at the start", 0, false)
	s.run(24 * time.Hour)
	want("after a day", 0, false)
	for range 100 { // a clock that is slewed
		s.run(time.Minute)
		s.sleep(time.Second)
		j.check()
	}
	want("slewed", 0, false)
	s.sleep(time.Hour)
	want("after a sleep", 1, true)
	s.run(suspectAfter - time.Millisecond)
	want("a little later", 1, true)
	s.run(time.Second)
	want("later", 1, false)
	s.sleep(-time.Hour)
	want("set back", 2, true)
	if awake := newSuspendDetector(); awake.suspectedSince(0) {
		t.Error("a machine that did not sleep did")
	}
}

// askedAt are gates with a permit for a host, on a machine whose clocks a test moves.
func askedAt(t *testing.T, s *sleeper, reached bool) (*Gates, func() *Permit) {
	t.Helper()
	gs := testGates()
	gs.suspend = s.detector()
	gs.outage.reach = func(context.Context, Host) bool { return reached }
	return gs, func() *Permit {
		p, err := gs.Acquire(t.Context(), Question{Host: "https://pds.example.com", Subject: "a"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func TestFailuresAroundASleepCountForNothing(t *testing.T) {
	t.Parallel()
	var s sleeper
	gs, ask := askedAt(t, &s, true) // our network is there
	fail := func(cutting bool) *Parked {
		p := ask()
		defer p.Release()
		if cutting {
			p.Answered(t.Context())
			return p.Cut(t.Context(), errSlow)
		}
		return p.NoAnswer(t.Context(), errSlow, errSlow)
	}
	for _, cutting := range []bool{false, true} {
		p := ask()
		s.sleep(time.Hour) // while the request is under way
		p.Answered(t.Context())
		if parked := p.Cut(t.Context(), errSlow); parked == nil || parked.Why != WhyNetwork {
			t.Errorf("cut %v: around the sleep: %v", cutting, parked)
		}
		p.Release()
		s.run(suspectAfter / 2)
		if parked := fail(cutting); parked == nil || parked.Why != WhyNetwork {
			t.Errorf("cut %v: shortly after: %v", cutting, parked)
		}
		if st := gs.HostState("https://pds.example.com"); st.Failures != 0 || gs.Outage() {
			t.Errorf("cut %v: the host is blamed: %+v, outage %v", cutting, st, gs.Outage())
		}
		s.run(suspectAfter)
	}
	if parked := fail(true); parked != nil {
		t.Errorf("long after: %v", parked)
	}
	if st := gs.HostState("https://pds.example.com"); st.Failures != 1 {
		t.Errorf("long after, the host is not blamed: %+v", st)
	}
}

func TestAWakingMachineWithoutANetworkParksEverything(t *testing.T) {
	t.Parallel()
	var s sleeper
	gs, ask := askedAt(t, &s, false)
	s.sleep(time.Hour)
	p := ask()
	defer p.Release()
	if parked := p.NoAnswer(t.Context(), errSlow, errSlow); parked == nil || parked.Why != WhyNetwork || !gs.Outage() {
		t.Errorf("got %v, outage %v", parked, gs.Outage())
	}
}
