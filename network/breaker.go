package network

import (
	"errors"
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

// way is how a host came to be asked. Each has a breaker of its own: what fails
// on one of them proves nothing for the others.
type way int

const (
	wayOrdinary way = iota
	wayRepo         // getRepo, which is the hardest to answer
	waySentOn       // another host sent us here, and may have chosen what cannot be answered
	wayService      // listings and look-ups: anybody can have us ask the relay or the directory for repos
	ways
)

// way is how the call's host came to be asked.
func (q call) way() way {
	switch {
	case q.hops > 0:
		return waySentOn
	case q.lane == laneRepo:
		return wayRepo
	}
	switch q.op {
	case opLookup, methodRepos, methodReposByCollection, methodCollections, methodHosts:
		return wayService
	default:
		return wayOrdinary
	}
}

// breaker sets a host aside that does not answer, or that a proxy answers for.
// A host can be half dead: it says at once how a repo is, and stands still when
// its records are asked for. So failures in a row are counted for each question
// too, and what has opened the breaker by one question is not closed by another.
// It is guarded by its gate's lock.
type breaker struct {
	first, longest time.Duration // between probes

	failed  map[string]struct{}            // subjects of the failures in a row
	each    map[string]map[string]struct{} // the same for each question
	last    error
	down    bool
	stuck   string // the one question that it is down for; empty: for all
	half    bool   // another question was answered: the next request is the next probe
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
		return b.next, !b.half && now.Before(b.next)
	}
}

// begin lets a request pass, and tells whether it is a probe.
func (b *breaker) begin() bool {
	b.probing = b.down
	return b.down
}

// reset forgets everything that is held against the host.
func (b *breaker) reset() { *b = breaker{first: b.first, longest: b.longest} }

// abandon ends a probe that told nothing: its caller went away.
func (b *breaker) abandon(probe bool) {
	if probe {
		b.probing = false
	}
}

// alive is called when the host itself has answered a question, whatever it said.
func (b *breaker) alive(op string, probe bool) {
	if b.down && b.stuck != "" && b.stuck != op {
		b.abandon(probe)
		b.half = b.half || probe
		return
	}
	if b.down {
		b.reset()
		return
	}
	b.failed, b.last = nil, nil
	delete(b.each, op)
}

// failure is called when it has not.
func (b *breaker) failure(now time.Time, op, subject string, probe bool, err error) {
	if e, is := errors.AsType[*Error](err); is { // whoever has asked may yet say more of his
		own := *e
		err = &own
	}
	b.last = err
	if probe {
		b.probing, b.half = false, false
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
	if b.each == nil {
		b.each = make(map[string]map[string]struct{})
	}
	if b.each[op] == nil {
		b.each[op] = make(map[string]struct{}, breakerTrips)
	}
	b.failed[subject], b.each[op][subject] = struct{}{}, struct{}{}
	all, one := len(b.failed) >= breakerTrips, len(b.each[op]) >= breakerTrips
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

// passage is a request that a gate has let through. One of its methods settles it.
type passage struct {
	g     *gate
	way   way
	op    string
	probe bool // of the breaker
}

func (p passage) alive() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	b := &p.g.breakers[p.way]
	was := b.down
	b.alive(p.op, p.probe)
	if was {
		p.g.note()
	}
}

func (p passage) failure(now time.Time, subject string, err error) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	b := &p.g.breakers[p.way]
	was := b.down
	b.failure(now, p.op, subject, p.probe, err)
	if b.down {
		p.g.note()
	}
	if !was && b.down {
		p.g.moved() // whoever queues for a slot need not
	}
}

func (p passage) abandon() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.breakers[p.way].abandon(p.probe)
}
