package polite

import (
	"time"
)

// breakerTrips is how many different repos in a row must go unanswered before a
// host counts as dead. One repo that breaks its host again and again is not a dead host.
const breakerTrips = 5

// HostState is how it stands with a host.
type HostState struct {
	Failures  int       // different repos in a row whose requests the host did not answer
	Down      bool      // set aside: only probes pass
	Stuck     string    // the one question that it is down for, as errors name it; empty: for all
	Probes    int       // probes in a row that failed since it went down
	NextProbe time.Time // when the next one may pass; zero unless Down
	LastErr   error     // what the last failure was; nil after an answer
	AskedFor  time.Time // it has asked for silence until then, and that is longer than we ever wait at once; else zero
}

// Circuit is what one breaker of a host covers: what fails in one proves nothing for the
// others.
type Circuit int

// The circuits.
const (
	CircuitOrdinary   Circuit = iota
	CircuitRepo               // getRepo, which is the hardest to answer
	CircuitRedirected         // another host redirected us here, and may have chosen what cannot be answered
	CircuitService            // listings and look-ups: anybody can have us ask the relay or the directory for repos
	circuits
)

// breaker sets a host aside that does not answer, or that a proxy answers for.
// A host can be half dead: it says at once how a repo is, and stands still when
// its records are asked for. So failures in a row are counted for each question
// too, and what has opened the breaker by one question is not closed by another.
// It is guarded by its gate's lock.
type breaker struct {
	first, longest time.Duration // between probes

	failed     map[string]struct{}            // subjects of the failures in a row
	failedByOp map[string]map[string]struct{} // the same for each question
	last       error
	down       bool
	stuck      string // the one question that it is down for; empty: for all
	halfOpen   bool   // another question was answered: the next request is the next probe
	probing    bool
	probes     int
	wait       time.Duration
	next       time.Time
}

// isOpen reports whether no request may be sent at this moment, and when to ask again.
func (b *breaker) isOpen(now time.Time) (time.Time, bool) {
	switch {
	case !b.down:
		return time.Time{}, false
	case b.probing:
		return now.Add(shortWait), true
	default:
		return b.next, !b.halfOpen && now.Before(b.next)
	}
}

// begin begins a request, and reports whether it is a probe.
func (b *breaker) begin() bool {
	b.probing = b.down
	return b.down
}

// reset forgets every failure.
func (b *breaker) reset() { *b = breaker{first: b.first, longest: b.longest} }

// abandon ends a probe of which nothing was learned: its caller went away.
func (b *breaker) abandon(probe bool) {
	if probe {
		b.probing = false
	}
}

// alive records that the host itself has answered a question, whatever it said.
func (b *breaker) alive(op string, probe bool) {
	if b.down && b.stuck != "" && b.stuck != op {
		b.abandon(probe)
		b.halfOpen = b.halfOpen || probe
		return
	}
	if b.down {
		b.reset()
		return
	}
	b.failed, b.last = nil, nil
	delete(b.failedByOp, op)
}

// failure records that it has not.
func (b *breaker) failure(now time.Time, op, subject string, probe bool, err error) {
	b.last = err
	if probe {
		b.probing, b.halfOpen = false, false
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
	if b.failedByOp == nil {
		b.failedByOp = make(map[string]map[string]struct{})
	}
	if b.failedByOp[op] == nil {
		b.failedByOp[op] = make(map[string]struct{}, breakerTrips)
	}
	b.failed[subject], b.failedByOp[op][subject] = struct{}{}, struct{}{}
	all, one := len(b.failed) >= breakerTrips, len(b.failedByOp[op]) >= breakerTrips
	if !all && !one {
		return
	}
	if !all {
		b.stuck = op
	}
	b.down, b.wait = true, b.first
	b.next = now.Add(b.wait)
}

func (b *breaker) state() HostState {
	s := HostState{Failures: len(b.failed), Down: b.down, Stuck: b.stuck, Probes: b.probes, LastErr: b.last}
	if b.down {
		s.NextProbe = b.next
	}
	return s
}
