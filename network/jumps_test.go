package network

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"appview/network/outcome"
)

// sleeper is a machine whose clocks a test moves.
type sleeper struct{ wall, ran atomic.Int64 }

func (s *sleeper) jumps() *jumps {
	begun := time.Unix(1_800_000_000, 0)
	return &jumps{
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
	j := s.jumps()
	want := func(what string, count int, recent bool) {
		t.Helper()
		if n, r := j.look(); n != count || r != recent {
			t.Errorf("%s: %d jumps, recent %v, want %d, %v", what, n, r, count, recent)
		}
	}
	want("at the start", 0, false)
	s.run(24 * time.Hour)
	want("after a day", 0, false)
	for range 100 { // a clock that is slewed
		s.run(time.Minute)
		s.sleep(time.Second)
		j.look()
	}
	want("slewed", 0, false)
	s.sleep(time.Hour)
	want("after a sleep", 1, true)
	s.run(afterJump - time.Millisecond)
	want("a little later", 1, true)
	s.run(time.Second)
	want("later", 1, false)
	s.sleep(-time.Hour)
	want("set back", 2, true)
	if awake := newJumps(); awake.since(0) {
		t.Error("a machine that did not sleep did")
	}
}

func TestFailuresAroundASleepCountForNothing(t *testing.T) {
	t.Parallel()
	var s sleeper
	var sleeping, cut atomic.Bool
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if sleeping.Swap(false) {
			s.sleep(time.Hour) // while the request is under way
		}
		if cut.Load() {
			cutBody(w, r)
			return
		}
		hangUp(w, r)
	})
	relay := serve(t, says(200, "application/json", `{"repos":[]}`)) // our network is there
	c := newClient(t, Config{Relay: string(relay)})
	c.jumps = s.jumps()

	for _, cutting := range []bool{false, true} {
		cut.Store(cutting)
		sleeping.Store(true)
		if _, err := page(t, c, host); reasonOf(err) != "parked: network" {
			t.Errorf("cut %v: around the sleep: %v", cutting, err)
		}
		s.run(afterJump / 2)
		if _, err := page(t, c, host); reasonOf(err) != "parked: network" {
			t.Errorf("cut %v: shortly after: %v", cutting, err)
		}
		if st := c.HostState(host); st.Failures != 0 || c.Outage() {
			t.Errorf("cut %v: the host is blamed: %+v, outage %v", cutting, st, c.Outage())
		}
		s.run(afterJump)
	}
	_, err := page(t, c, host)
	wantReason(t, err, outcome.ReasonCutBody)
	if st := c.HostState(host); st.Failures != 1 {
		t.Errorf("long after, the host is not blamed: %+v", st)
	}
}

func TestAWakingMachineWithoutANetworkParksEverything(t *testing.T) {
	t.Parallel()
	var s sleeper
	dead, _ := nobody(t)
	c := newClient(t, Config{}) // neither relay nor directory is there
	c.jumps = s.jumps()
	s.sleep(time.Hour)
	if _, err := page(t, c, dead); reasonOf(err) != "parked: network" || !c.Outage() {
		t.Errorf("got %v, outage %v", err, c.Outage())
	}
}
