// Package polite decides whether a host may be asked, and when. Each host has a gate: a bound
// of requests in flight, a token bucket, the pause that the host asked for, what is left of its
// quotas, and circuit breakers. What fails because this machine is offline, or was suspended,
// is held against no host. The package sends nothing.
package polite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Host is where requests go: scheme, lower-case name and, unless it is the
// scheme's own, port, as in "https://pds.example.com". One gate each.
type Host string

// Question is what a host is to be asked.
type Question struct {
	Host    Host
	Op      string // names the question, as the method does
	Subject string // the repo, or whatever else tells one question from another to the breaker
	Scope   Scope
	Circuit Circuit
}

// Config says how politely. All of it must be set, but for OnForget.
type Config struct {
	Limits      func(Host) (rps float64, inFlight int)
	Pause       time.Duration                    // after a refusal that names no time: between this and twice this
	Probe       time.Duration                    // before the first probe of a dead host; doubles with each
	MaxProbe    time.Duration                    // longest wait between two probes
	OutageProbe time.Duration                    // between two probes of our own network
	Reach       func(context.Context, Host) bool // opens a connection and closes it again
	Services    []Host                           // needed for everything: canaries from the start, and always remembered
	OnForget    func(Host)                       // told when the gate of a host is forgotten, under a lock
	Log         *slog.Logger
	Now         func() time.Time
}

// Gates are the gates of all hosts. They are shared by everything in the process:
// politeness counts per host, not per caller.
type Gates struct {
	cfg     Config
	gates   gateTable
	outage  *outage
	suspend *suspendDetector
	pauses  *pauses
}

// New makes the gates. There is one for a host from its first question on.
func New(cfg Config) *Gates {
	g := &Gates{cfg: cfg, suspend: newSuspendDetector(), pauses: newPauses()}
	g.gates = gateTable{make: g.newGate, onForget: cfg.OnForget, all: make(map[Host]*gate), swept: cfg.Now()}
	g.outage = &outage{every: cfg.OutageProbe, reach: cfg.Reach, services: cfg.Services, onChange: g.networkChanged}
	return g
}

func (gs *Gates) newGate(host Host) *gate {
	rps, inFlight := gs.cfg.Limits(host)
	g := newGate(host, rps, inFlight, breaker{first: gs.cfg.Probe, longest: max(gs.cfg.Probe, gs.cfg.MaxProbe)})
	g.onChange = func() { gs.pauses.markDirty(host) }
	return g
}

// networkChanged is told when our own network goes and when it comes back.
func (gs *Gates) networkChanged(ctx context.Context, gone bool) {
	if !gone {
		gs.cfg.Log.InfoContext(ctx, "network is back")
		return
	}
	gs.cfg.Log.WarnContext(ctx, "own network is gone", "until", "a host answers")
	gs.gates.resetBreakers()
}

// Why a call is parked.
const (
	WhyRateLimited = "rate_limited" // the host answered 429, 503 with Retry-After, or says that its quota is spent
	WhyPaced       = "paced"        // the host is slowed so far that the next token is not soon
	WhyDown        = "down"         // the breaker is open
	WhyNetwork     = "network"      // our own network is gone
	WhyDisk        = "disk"         // there is no room for a large repo on our own disk
)

// Parked is the error of a call that was not answered because its host is to be
// left alone until a known moment. It is back-pressure: never a failed attempt.
type Parked struct {
	Host  Host
	Until time.Time
	Why   string // one of the Why constants

	// Answer is what the host said last, or what came in place of an answer, in words;
	// empty: that has nothing to do with it.
	Answer string
}

// Error names the host, the reason and the end of the wait.
func (p *Parked) Error() string {
	return fmt.Sprintf("%s is parked until %s: %s", p.Host, p.Until.UTC().Format(time.RFC3339), p.Why)
}

// ParkedUntil is the moment before which a question is not to be asked, if there is one.
func (gs *Gates) ParkedUntil(host Host, s Scope, c Circuit) (until time.Time, parked bool) {
	now := gs.cfg.Now()
	if until, down := gs.outage.state(); down {
		return until, true
	}
	g := gs.gates.get(host)
	if g == nil {
		return time.Time{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parked(s, c, now); p != nil {
		return p.Until, true
	}
	return time.Time{}, false
}

// Outage reports whether our own network is gone.
func (gs *Gates) Outage() bool {
	_, down := gs.outage.state()
	return down
}

// HostState is how it stands with a host.
func (gs *Gates) HostState(host Host) HostState {
	g := gs.gates.get(host)
	if g == nil {
		return HostState{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	state := g.breakers[CircuitOrdinary].state()
	state.AskedFor = g.requestedUntil
	return state
}

// Standing is how a host stands that has a gate: one that was asked lately, or is to be
// left alone.
type Standing struct {
	Host   Host
	Parked bool // it asked to be left alone for a while, in some scope
	Down   bool // it is set aside because it does not answer
}

// Standings are those of all hosts that have a gate.
func (gs *Gates) Standings() []Standing {
	now := gs.cfg.Now()
	gates := gs.gates.list()
	all := make([]Standing, 0, len(gates))
	for _, g := range gates {
		all = append(all, g.standing(now))
	}
	return all
}

func (g *gate) standing(now time.Time) Standing {
	s := Standing{Host: g.host, Parked: !g.pausedUntil(now).IsZero()}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Down = g.breakers[CircuitOrdinary].down || g.breakers[CircuitService].down
	return s
}

// InFlight is how many requests to a host are under way.
func (gs *Gates) InFlight(host Host) int {
	if g := gs.gates.get(host); g != nil {
		return len(g.slots)
	}
	return 0
}

// Rate is how many requests a second a host is asked at most, as things are: less than
// what is configured where it has lately refused some.
func (gs *Gates) Rate(host Host) float64 {
	g := gs.gates.get(host)
	if g == nil {
		rps, _ := gs.cfg.Limits(host)
		return rps
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return min(g.base, g.backoff)
}

// SetAside has a service be left alone for a while, in which its answers have failed for its
// caller, until it answers a question. It returns until when.
func (gs *Gates) SetAside(host Host, d time.Duration, why string) time.Time {
	now := gs.cfg.Now()
	g := gs.gates.retain(host, now)
	defer func() { gs.gates.release(g, gs.cfg.Now()) }()
	g.mu.Lock()
	defer g.mu.Unlock()
	b := &g.breakers[CircuitService]
	if !b.down {
		b.down, b.wait, b.next = true, b.first, now.Add(b.first)
	}
	b.last = errors.New(why)
	if next := now.Add(d); next.After(b.next) {
		b.next = next
	}
	g.wakeWaiters()
	g.changed()
	return b.next
}
