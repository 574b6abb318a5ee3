package network

import (
	"time"
)

// breakerTrips is how many different repos in a row must go unanswered before a
// host counts as dead. One repo that breaks its host again and again is not a dead host.
const breakerTrips = 5

// HostState is what the breaker knows of a host.
type HostState struct {
	Failures  int       // different repos in a row whose requests the host did not answer
	Down      bool      // set aside: only probes pass
	Probes    int       // probes in a row that failed since it went down
	NextProbe time.Time // when the next one may pass; zero unless Down
	LastErr   error     // what the last failure was; nil after an answer
}

// breaker sets a host aside that does not answer, or that a proxy answers for.
// It is guarded by its gate's lock.
type breaker struct {
	first, longest time.Duration // between probes

	failed  map[string]struct{} // subjects of the failures in a row
	last    error
	down    bool
	probing bool
	probes  int
	wait    time.Duration
	next    time.Time
}

// closed tells whether no request may pass at this moment, and when to ask again.
func (b *breaker) closed(now time.Time) (time.Time, bool) {
	switch {
	case !b.down:
		return time.Time{}, false
	case b.probing:
		return now.Add(shortWait), true
	default:
		return b.next, now.Before(b.next)
	}
}

// begin lets a request pass, and tells whether it is a probe.
func (b *breaker) begin() bool {
	b.probing = b.down
	return b.down
}

// abandon ends a probe that told nothing: its caller went away.
func (b *breaker) abandon(probe bool) {
	if probe {
		b.probing = false
	}
}

// alive is called when the host itself has answered, whatever it said.
func (b *breaker) alive() {
	*b = breaker{first: b.first, longest: b.longest}
}

// failure is called when it has not.
func (b *breaker) failure(now time.Time, subject string, probe bool, err error) {
	b.last = err
	if probe {
		b.probing = false
		b.probes++
		b.wait = min(2*b.wait, b.longest)
		b.next = now.Add(b.wait)
		return
	}
	if b.down {
		return // sent before it went down
	}
	if b.failed == nil {
		b.failed = make(map[string]struct{}, breakerTrips)
	}
	b.failed[subject] = struct{}{}
	if len(b.failed) >= breakerTrips {
		b.down, b.wait = true, b.first
		b.next = now.Add(b.wait)
	}
}

func (b *breaker) state() HostState {
	s := HostState{Failures: len(b.failed), Down: b.down, Probes: b.probes, LastErr: b.last}
	if b.down {
		s.NextProbe = b.next
	}
	return s
}

// alive, failure and abandon settle the request that enter let through.
func (g *gate) alive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breaker.alive()
}

func (g *gate) failure(now time.Time, subject string, probe bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.breaker.down
	g.breaker.failure(now, subject, probe, err)
	if !was && g.breaker.down {
		g.moved() // whoever queues for a slot need not
	}
}

func (g *gate) abandon(probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breaker.abandon(probe)
}
