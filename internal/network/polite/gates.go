package polite

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	gateIdle  = 5 * time.Minute // without a request, before a gate is forgotten
	gateSweep = time.Minute     // between two searches for such gates
	// deadGate is how long a dead host is remembered after its probe was due.
	deadGate = time.Hour
	// maxGates is more hosts than the network has. A host's name costs nothing, and
	// who makes names up could have each of them ask for an hour of silence.
	maxGates = 32 << 10
)

// gateTable has a gate for each host that anybody talks to or that is to be left alone.
type gateTable struct {
	make     func(Host) *gate
	onForget func(Host) // nil: nobody is told

	mu    sync.Mutex
	all   map[Host]*gate
	swept time.Time
}

// retain returns the host's gate, which stays until release.
func (gt *gateTable) retain(host Host, now time.Time) *gate {
	gt.mu.Lock()
	defer gt.mu.Unlock()
	if now.Sub(gt.swept) > gateSweep {
		gt.swept = now
		for h, g := range gt.all {
			if g.refs == 0 && now.Sub(g.lastUsed) > gateIdle && g.isForgettable(now) {
				gt.forget(h)
			}
		}
	}
	g := gt.all[host]
	if g == nil {
		if len(gt.all) >= maxGates {
			gt.evict(now)
		}
		g = gt.make(host)
		gt.all[host] = g
	}
	g.refs++
	return g
}

// forget removes the gate of a host. The caller holds the lock.
func (gt *gateTable) forget(host Host) {
	delete(gt.all, host)
	if gt.onForget != nil {
		gt.onForget(host)
	}
}

// evict forgets a quarter of the gates: those that have gone without a request for
// longest, or, when all hosts want silence, those that want it for longest. Only who
// has made up so many names has so many of these. The caller holds the lock.
func (gt *gateTable) evict(now time.Time) {
	type idle struct {
		*gate
		paused time.Time // nothing is sent before; zero: it may be asked
	}
	var list []idle
	for _, g := range gt.all {
		if g.refs == 0 {
			list = append(list, idle{g, g.pausedUntil(now)})
		}
	}
	slices.SortFunc(list, func(x, y idle) int {
		switch {
		case x.paused.IsZero() && y.paused.IsZero():
			return x.lastUsed.Compare(y.lastUsed)
		case x.paused.IsZero() || y.paused.IsZero():
			return x.paused.Compare(y.paused)
		default:
			return y.paused.Compare(x.paused)
		}
	})
	for _, g := range list[:min(len(list), maxGates/4)] {
		gt.forget(g.host)
	}
}

// pausedUntil is the moment before which the host wants nothing in some scope, if that is
// still to come.
func (g *gate) pausedUntil(now time.Time) (until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range scopes {
		if t := g.pause(s); t.After(now) && t.After(until) {
			until = t
		}
	}
	return until
}

// release lets a gate that was retained be forgotten.
func (gt *gateTable) release(g *gate, now time.Time) {
	gt.mu.Lock()
	defer gt.mu.Unlock()
	g.refs--
	g.lastUsed = now
}

// get returns the host's gate if there is one. It may be forgotten meanwhile.
func (gt *gateTable) get(host Host) *gate {
	gt.mu.Lock()
	defer gt.mu.Unlock()
	return gt.all[host]
}

// list is every gate there is.
func (gt *gateTable) list() []*gate {
	gt.mu.Lock()
	defer gt.mu.Unlock()
	return slices.Collect(maps.Values(gt.all))
}

// resetBreakers forgets the failures of every host: it was our own network that failed,
// and dead hosts will show again.
func (gt *gateTable) resetBreakers() {
	gt.mu.Lock()
	defer gt.mu.Unlock()
	for _, g := range gt.all {
		g.resetBreakers()
	}
}

func (g *gate) resetBreakers() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.breakers {
		if g.breakers[c].down {
			g.changed()
		}
		g.breakers[c].reset()
	}
}

// isForgettable reports whether a new gate would treat the host no worse.
func (g *gate) isForgettable(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.After(now) {
		return false
	}
	for _, q := range g.quotas {
		if q.fullAt.After(now) {
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
