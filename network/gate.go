package network

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/time/rate"
)

const (
	// shortWait is the longest that a call waits for its turn. A longer wait is
	// the caller's to spend elsewhere: it gets a *Parked.
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

	mu       sync.Mutex
	tokens   *rate.Limiter
	backoff  float64 // requests a second that the host's refusals have left us
	eased    time.Time
	until    time.Time     // nothing is sent before
	asked    time.Time     // the host wanted nothing before, and that is further away than until
	said     string        // with which the host asked for the last pause
	wake     chan struct{} // closed when a pause or a spent quota moves
	quotas   [lanes]paced
	breakers [ways]breaker
	noted    func() // what is to be remembered of the host has changed; nil: nobody does

	samples samples
	sought  [questions]time.Time    // when other accounts were looked for
	unknown map[syntax.DID]struct{} // accounts refused in every way, since it has answered for any

	// Kept by gates, under its lock.
	users int
	used  time.Time
}

func newGate(host Host, rps float64, inFlight int, b breaker) *gate {
	g := &gate{
		host: host, base: rps, slots: make(chan struct{}, inFlight), backoff: rps, wake: make(chan struct{}),
		tokens: bucket(rps),
	}
	for w := range g.breakers {
		g.breakers[w] = b
	}
	for l := range g.quotas {
		g.quotas[l].tokens = bucket(rps)
	}
	return g
}

func bucket(rps float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(rps), max(1, int(rps*burstPerRPS)))
}

// enter waits until a request may be sent, for as long as that is soon, and
// takes one of the slots, which leave gives back.
func (g *gate) enter(ctx context.Context, q call, now func() time.Time) (passage, error) {
	for {
		wake, err := g.blocked(q, now())
		if err != nil {
			return passage{}, err
		}
		select {
		case g.slots <- struct{}{}:
		case <-wake:
			continue
		case <-ctx.Done():
			return passage{}, ctx.Err()
		}
		probe, err := g.turn(ctx, q, now)
		if err != nil {
			<-g.slots
		}
		return passage{g: g, way: q.way(), op: q.op, probe: probe}, err
	}
}

// blocked tells whether there is any point in queueing.
func (g *gate) blocked(q call, now time.Time) (wake <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parked(q.lane, q.way(), now); p != nil {
		return nil, p
	}
	return g.wake, nil
}

// parked is nil when a request may be sent within a short wait, tokens aside.
func (g *gate) parked(l lane, w way, now time.Time) *Parked {
	if until := g.pause(l); until.Sub(now) > shortWait {
		return &Parked{Host: g.host, Until: until, Why: WhyRateLimited, Answer: g.asksFor(l)}
	}
	if next, closed := g.breakers[w].closed(now); closed {
		p := &Parked{Host: g.host, Until: next, Why: WhyDown}
		if last := g.breakers[w].last; last != nil {
			p.Answer = last.Error()
		}
		return p
	}
	return nil
}

// asksFor is how the host has asked for the pause on a lane.
func (g *gate) asksFor(l lane) string {
	if g.quotas[l].spent.After(g.until) {
		return "its rate limit is used up"
	}
	return g.said
}

// pause is the moment before which nothing is sent on a lane.
func (g *gate) pause(l lane) time.Time {
	if spent := g.quotas[l].spent; spent.After(g.until) {
		return spent
	}
	return g.until
}

// turn waits for a token and the end of a short pause, with a slot in hand.
func (g *gate) turn(ctx context.Context, q call, now func() time.Time) (probe bool, err error) {
	var paid payment
	var ready time.Time // when the tokens are ours
	for {
		at := now()
		g.mu.Lock()
		if p := g.parked(q.lane, q.way(), at); p != nil {
			paid.refund(at)
			g.mu.Unlock()
			return false, p
		}
		if paid == nil {
			paid = g.pay(q.lane, at)
			ready = at.Add(paid.delay(at))
			if ready.Sub(at) > g.patience() {
				paid.refund(at)
				g.mu.Unlock()
				return false, &Parked{Host: g.host, Until: ready, Why: WhyPaced}
			}
		}
		wait := max(ready.Sub(at), g.pause(q.lane).Sub(at))
		if wait <= 0 {
			probe = g.breakers[q.way()].begin()
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
			paid.refund(now())
			g.mu.Unlock()
			return false, ctx.Err()
		}
		timer.Stop()
	}
}

// patience is how long a token may take before its caller is sent away: a host
// that is asked once in two seconds by configuration is not a slow one.
func (g *gate) patience() time.Duration {
	return max(shortWait, time.Duration(2*float64(time.Second)/g.base))
}

// pay takes a token of the host's and one of the lane's, at the rates that hold now.
func (g *gate) pay(l lane, now time.Time) payment {
	q := &g.quotas[l]
	setRate(g.tokens, min(g.base, g.backoff), now)
	limit := g.base
	if now.Before(q.end) {
		limit = min(limit, q.rate)
	}
	setRate(q.tokens, limit, now)
	return payment{g.tokens.ReserveN(now, 1), q.tokens.ReserveN(now, 1)}
}

func setRate(tokens *rate.Limiter, rps float64, now time.Time) {
	if rate.Limit(rps) != tokens.Limit() {
		tokens.SetLimitAt(now, rate.Limit(rps))
	}
}

// silent tells whether nothing may be sent at this moment.
func (g *gate) silent(l lane, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause(l).After(now)
}

// refused is called when the host asks to be left alone: for d, or, when it does
// not say for how long, for between once and twice the usual pause.
func (g *gate) refused(now time.Time, d, usual time.Duration) *Parked {
	if d <= 0 {
		d = usual + rand.N(usual)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.After(g.until) {
		g.asked = time.Time{}
	}
	if d > maxPause {
		g.asked = now.Add(d)
		d = maxPause
	}
	g.pauseUntil(now.Add(d))
	if now.Sub(g.eased) > shortWait { // the refusals of one moment are one refusal
		g.backoff = max(g.backoff/2, min(slowest, g.base))
	}
	g.eased = g.until
	g.note()
	return &Parked{Host: g.host, Until: g.until, Why: WhyRateLimited}
}

// refusedWith is refused for an answer with an HTTP status.
func (g *gate) refusedWith(status int, now time.Time, d, usual time.Duration) *Parked {
	p := g.refused(now, d, usual)
	p.Answer = fmt.Sprintf("HTTP %d %s", status, http.StatusText(status))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = p.Answer
	return p
}

// answered is called with what the host says of its quota, if anything.
func (g *gate) answered(l lane, now time.Time, q quota) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.After(g.until) {
		g.asked = time.Time{}
	}
	if g.backoff < g.base && now.Sub(g.eased) >= recovery {
		g.backoff = min(g.base, g.backoff+g.base/recoverySteps)
		g.eased = now
	}
	if !q.known {
		return
	}
	left := &g.quotas[l]
	left.end = now.Add(q.reset)
	if q.remaining > 0 {
		left.rate = float64(q.remaining) / q.reset.Seconds()
		return
	}
	left.rate = g.base
	if left.end.After(left.spent) {
		left.spent = left.end
		g.moved()
		g.note()
	}
}

func (g *gate) pauseUntil(t time.Time) {
	if t.After(g.until) {
		g.until = t
		g.moved()
	}
}

// note has what is remembered of the host be brought up to date.
func (g *gate) note() {
	if g.noted != nil {
		g.noted()
	}
}

// moved wakes whoever waits for a moment that is no longer the right one.
func (g *gate) moved() {
	close(g.wake)
	g.wake = make(chan struct{})
}

// leave gives the slot back.
func (g *gate) leave() { <-g.slots }
