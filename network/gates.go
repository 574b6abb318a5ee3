package network

import (
	"slices"
	"sync"
	"time"
)

const (
	gateIdle  = 5 * time.Minute // without a request, before a gate is forgotten
	gateSweep = time.Minute     // between two looks for such gates
	// deadGate is how long a dead host is remembered after its probe was due.
	deadGate = time.Hour
	// maxGates is more hosts than the network has. A host's name costs nothing, and
	// who makes names up could have each of them ask for an hour of silence.
	maxGates = 32 << 10
)

// gates keeps one gate for each host that anybody talks to or that is to be left alone.
type gates struct {
	make func(Host) *gate

	mu    sync.Mutex
	all   map[Host]*gate
	swept time.Time
}

// take gives the host's gate, which stays until it is given back.
func (gs *gates) take(host Host, now time.Time) *gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if now.Sub(gs.swept) > gateSweep {
		gs.swept = now
		for h, g := range gs.all {
			if g.users == 0 && now.Sub(g.used) > gateIdle && g.forgettable(now) {
				delete(gs.all, h)
			}
		}
	}
	g := gs.all[host]
	if g == nil {
		if len(gs.all) >= maxGates {
			gs.shrink(now)
		}
		g = gs.make(host)
		gs.all[host] = g
	}
	g.users++
	return g
}

// shrink forgets a quarter of the gates: those that have gone without a request for
// longest, or, when all hosts want silence, those that want it for longest. Only who
// has made up so many names has so many of these. The caller holds the lock.
func (gs *gates) shrink(now time.Time) {
	type idle struct {
		*gate
		quiet time.Time // nothing is sent before; zero: it may be asked
	}
	var list []idle
	for _, g := range gs.all {
		if g.users == 0 {
			list = append(list, idle{g, g.quiet(now)})
		}
	}
	slices.SortFunc(list, func(x, y idle) int {
		switch {
		case x.quiet.IsZero() && y.quiet.IsZero():
			return x.used.Compare(y.used)
		case x.quiet.IsZero() || y.quiet.IsZero():
			return x.quiet.Compare(y.quiet)
		default:
			return y.quiet.Compare(x.quiet)
		}
	})
	for _, g := range list[:min(len(list), maxGates/4)] {
		delete(gs.all, g.host)
	}
}

// quiet is the moment before which the host wants nothing on some lane, if that is
// still to come.
func (g *gate) quiet(now time.Time) (until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range lanes {
		if t := g.pause(l); t.After(now) && t.After(until) {
			until = t
		}
	}
	return until
}

func (gs *gates) give(g *gate, now time.Time) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g.users--
	g.used = now
}

// look gives the host's gate if there is one. It may be forgotten meanwhile.
func (gs *gates) look(host Host) *gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.all[host]
}

// acquit forgets what every breaker holds against its host: it was our own
// network that failed, and dead hosts will show again.
func (gs *gates) acquit() {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, g := range gs.all {
		g.acquit()
	}
}

func (g *gate) acquit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.breakers {
		if g.breakers[w].down {
			g.note()
		}
		g.breakers[w].reset()
	}
}

// forgettable tells whether a new gate would treat the host no worse.
func (g *gate) forgettable(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.After(now) {
		return false
	}
	for _, q := range g.quotas {
		if q.end.After(now) {
			return false
		}
	}
	for _, b := range g.breakers {
		if b.down && now.Sub(b.next) <= deadGate {
			return false
		}
	}
	return true
}
