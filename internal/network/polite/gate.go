package polite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// shortWait is the longest that a call waits for a token or the end of a pause. A longer
	// wait is the caller's to spend elsewhere: it gets a *Parked.
	shortWait = time.Second
	// burstPerRPS sizes the burst: a quarter of a second's worth.
	burstPerRPS = 0.25
	// slowest is the least that a 429 slows a host to, in requests a second.
	slowest = 0.25
	// recovery is the quiet time after which a slowed host gets a step faster,
	// and recoverySteps how many steps lead from nothing to the full rate.
	recovery      = 10 * time.Second
	recoverySteps = 8
)

// gate is what every request to one host passes: it holds the in-flight cap,
// the token bucket, the pause that the host asked for, what is left of its
// quotas, and the breakers.
type gate struct {
	host  Host
	base  float64 // requests a second when nothing slows us
	slots chan struct{}

	mu             sync.Mutex
	tokens         *rate.Limiter
	backoff        float64       // requests a second that the host's refusals have left us
	rateChanged    time.Time     // when backoff did, or the pause ends that it came with
	until          time.Time     // nothing is sent before
	requestedUntil time.Time     // the host wanted nothing before, and that is further away than until
	pauseAnswer    string        // with which the host asked for the last pause
	wake           chan struct{} // closed when a pause or a spent quota moves
	quotas         [scopes]quotaState
	breakers       [circuits]breaker
	onChange       func() // what is saved of the host has changed; nil: nothing is

	// Guarded by the lock of the gateTable.
	refs     int
	lastUsed time.Time
}

func newGate(host Host, rps float64, inFlight int, b breaker) *gate {
	g := &gate{
		host: host, base: rps, slots: make(chan struct{}, inFlight), backoff: rps, wake: make(chan struct{}),
		tokens: bucket(rps),
	}
	for c := range g.breakers {
		g.breakers[c] = b
	}
	for s := range g.quotas {
		g.quotas[s].tokens = bucket(rps)
	}
	return g
}

func bucket(rps float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(rps), max(1, int(rps*burstPerRPS)))
}

// acquire waits until a request may be sent, for as long as that is soon, and takes one of
// the slots. It reports whether the request is a probe of a breaker.
func (g *gate) acquire(ctx context.Context, q Question, now func() time.Time) (probe bool, err error) {
	for {
		wake, err := g.checkParked(q, now())
		if err != nil {
			return false, err
		}
		select {
		case g.slots <- struct{}{}:
		case <-wake:
			continue
		case <-ctx.Done():
			return false, ctx.Err()
		}
		probe, err := g.awaitToken(ctx, q, now)
		if err != nil {
			g.release()
		}
		return probe, err
	}
}

// release gives a slot back.
func (g *gate) release() { <-g.slots }

// checkParked fails if there is no point in queueing for a slot.
func (g *gate) checkParked(q Question, now time.Time) (wake <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parked(q.Scope, q.Circuit, now); p != nil {
		return nil, p
	}
	return g.wake, nil
}

// parked is nil when a request may be sent within a short wait, tokens aside.
func (g *gate) parked(s Scope, c Circuit, now time.Time) *Parked {
	if until := g.pause(s); until.Sub(now) > shortWait {
		return &Parked{Host: g.host, Until: until, Why: WhyRateLimited, Answer: g.pauseReason(s)}
	}
	if next, open := g.breakers[c].isOpen(now); open {
		p := &Parked{Host: g.host, Until: next, Why: WhyDown}
		if last := g.breakers[c].last; last != nil {
			p.Answer = last.Error()
		}
		return p
	}
	return nil
}

// pauseReason is how the host has asked for the pause in a scope.
func (g *gate) pauseReason(s Scope) string {
	if g.quotas[s].spentUntil.After(g.until) {
		return "its rate limit is used up"
	}
	return g.pauseAnswer
}

// pause is the moment before which nothing is sent in a scope.
func (g *gate) pause(s Scope) time.Time {
	if spent := g.quotas[s].spentUntil; spent.After(g.until) {
		return spent
	}
	return g.until
}

// awaitToken waits for a token and the end of a short pause. The caller holds a slot.
func (g *gate) awaitToken(ctx context.Context, q Question, now func() time.Time) (probe bool, err error) {
	var reserved reservation
	var ready time.Time // when the tokens are ours
	for {
		at := now()
		g.mu.Lock()
		if p := g.parked(q.Scope, q.Circuit, at); p != nil {
			reserved.cancel(at)
			g.mu.Unlock()
			return false, p
		}
		if reserved == nil {
			reserved = g.reserve(q.Scope, at)
			ready = at.Add(reserved.delay(at))
			if ready.Sub(at) > g.maxTokenWait() {
				reserved.cancel(at)
				g.mu.Unlock()
				return false, &Parked{Host: g.host, Until: ready, Why: WhyPaced}
			}
		}
		wait := max(ready.Sub(at), g.pause(q.Scope).Sub(at))
		if wait <= 0 {
			probe = g.breakers[q.Circuit].begin()
			g.mu.Unlock()
			return probe, nil
		}
		wake := g.wake
		g.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-wake: // the pause has moved
		case <-ctx.Done():
			timer.Stop()
			g.mu.Lock()
			reserved.cancel(now())
			g.mu.Unlock()
			return false, ctx.Err()
		}
		timer.Stop()
	}
}

// maxTokenWait is how long a token may take before its caller is parked: a host
// that is asked once in two seconds by configuration is not a slow one.
func (g *gate) maxTokenWait() time.Duration {
	return max(shortWait, time.Duration(2*float64(time.Second)/g.base))
}

// reserve takes a token of the host's bucket and one of the scope's, at the rates that hold now.
func (g *gate) reserve(s Scope, now time.Time) reservation {
	q := &g.quotas[s]
	setRate(g.tokens, min(g.base, g.backoff), now)
	limit := g.base
	if now.Before(q.fullAt) {
		limit = min(limit, q.rate)
	}
	setRate(q.tokens, limit, now)
	return reservation{g.tokens.ReserveN(now, 1), q.tokens.ReserveN(now, 1)}
}

func setRate(tokens *rate.Limiter, rps float64, now time.Time) {
	if rate.Limit(rps) != tokens.Limit() {
		tokens.SetLimitAt(now, rate.Limit(rps))
	}
}

// isPaused reports whether nothing may be sent in a scope at this moment.
func (g *gate) isPaused(s Scope, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause(s).After(now)
}

// refused pauses the host, which asked to be left alone: for d, or, when it did
// not say for how long, for between once and twice the usual pause.
func (g *gate) refused(now time.Time, d, usual time.Duration) *Parked {
	if d <= 0 {
		d = usual + rand.N(usual)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.After(g.until) {
		g.requestedUntil = time.Time{}
	}
	if d > maxPause {
		g.requestedUntil = now.Add(d)
		d = maxPause
	}
	g.pauseUntil(now.Add(d))
	if now.Sub(g.rateChanged) > shortWait { // the refusals of one moment are one refusal
		g.backoff = max(g.backoff/2, min(slowest, g.base))
	}
	g.rateChanged = g.until
	g.changed()
	return &Parked{Host: g.host, Until: g.until, Why: WhyRateLimited}
}

// refusedWith is refused for an answer with an HTTP status.
func (g *gate) refusedWith(status int, now time.Time, d, usual time.Duration) *Parked {
	p := g.refused(now, d, usual)
	p.Answer = fmt.Sprintf("HTTP %d %s", status, http.StatusText(status))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pauseAnswer = p.Answer
	return p
}

// recordAnswer speeds a slowed host up again, step by step, and records what an answer says
// of its quota, if anything.
func (g *gate) recordAnswer(s Scope, now time.Time, q quota) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.After(g.until) {
		g.requestedUntil = time.Time{}
	}
	if g.backoff < g.base && now.Sub(g.rateChanged) >= recovery {
		g.backoff = min(g.base, g.backoff+g.base/recoverySteps)
		g.rateChanged = now
	}
	if !q.known {
		return
	}
	left := &g.quotas[s]
	left.fullAt = now.Add(q.reset)
	if q.remaining > 0 {
		left.rate = float64(q.remaining) / q.reset.Seconds()
		return
	}
	left.rate = g.base
	if left.fullAt.After(left.spentUntil) {
		left.spentUntil = left.fullAt
		g.wakeWaiters()
		g.changed()
	}
}

func (g *gate) pauseUntil(t time.Time) {
	if t.After(g.until) {
		g.until = t
		g.wakeWaiters()
	}
}

// changed marks what is saved of the host as out of date.
func (g *gate) changed() {
	if g.onChange != nil {
		g.onChange()
	}
}

// wakeWaiters wakes whoever waits for a moment that is no longer the right one.
func (g *gate) wakeWaiters() {
	close(g.wake)
	g.wake = make(chan struct{})
}
