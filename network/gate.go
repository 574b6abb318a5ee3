package network

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

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
// the token bucket, the pause that the host asked for, and the breaker.
type gate struct {
	host  Host
	base  float64 // requests a second when nothing slows us
	slots chan struct{}

	mu       sync.Mutex
	tokens   *rate.Limiter
	backoff  float64 // requests a second that the host's refusals have left us
	eased    time.Time
	quota    float64 // requests a second that the host's quota allows…
	quotaEnd time.Time
	until    time.Time     // nothing is sent before
	wake     chan struct{} // closed when until moves
	breaker  breaker

	// Kept by gates, under its lock.
	users int
	used  time.Time
}

func newGate(host Host, rps float64, inFlight int, b breaker) *gate {
	return &gate{
		host: host, base: rps, slots: make(chan struct{}, inFlight), backoff: rps, wake: make(chan struct{}),
		tokens:  rate.NewLimiter(rate.Limit(rps), max(1, int(rps*burstPerRPS))),
		breaker: b,
	}
}

// enter waits until a request may be sent, for as long as that is soon, and
// takes one of the slots. It tells whether the request is the breaker's probe.
func (g *gate) enter(ctx context.Context, now func() time.Time) (probe bool, err error) {
	for {
		wake, err := g.blocked(now())
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
		probe, err := g.turn(ctx, now)
		if err != nil {
			<-g.slots
		}
		return probe, err
	}
}

// blocked tells whether there is any point in queueing.
func (g *gate) blocked(now time.Time) (wake <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parked(now); p != nil {
		return nil, p
	}
	return g.wake, nil
}

// parked is nil when a request may be sent within a short wait, tokens aside.
func (g *gate) parked(now time.Time) *Parked {
	if g.until.Sub(now) > shortWait {
		return &Parked{Host: g.host, Until: g.until, Why: WhyRateLimited}
	}
	if next, closed := g.breaker.closed(now); closed {
		return &Parked{Host: g.host, Until: next, Why: WhyDown}
	}
	return nil
}

// turn waits for a token and the end of a short pause, with a slot in hand.
func (g *gate) turn(ctx context.Context, now func() time.Time) (probe bool, err error) {
	var paid *rate.Reservation
	var ready time.Time // when the token is ours
	for {
		at := now()
		g.mu.Lock()
		if p := g.parked(at); p != nil {
			g.refund(paid, at)
			g.mu.Unlock()
			return false, p
		}
		if paid == nil {
			g.pace(at)
			paid = g.tokens.ReserveN(at, 1)
			ready = at.Add(paid.DelayFrom(at))
			if ready.Sub(at) > g.patience() {
				g.refund(paid, at)
				g.mu.Unlock()
				return false, &Parked{Host: g.host, Until: ready, Why: WhyPaced}
			}
		}
		wait := max(ready.Sub(at), g.until.Sub(at))
		if wait <= 0 {
			probe = g.breaker.begin()
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
			g.refund(paid, now())
			g.mu.Unlock()
			return false, ctx.Err()
		}
		timer.Stop()
	}
}

func (g *gate) refund(paid *rate.Reservation, now time.Time) {
	if paid != nil {
		paid.CancelAt(now)
	}
}

// patience is how long a token may take before its caller is sent away: a host
// that is asked once in two seconds by configuration is not a slow one.
func (g *gate) patience() time.Duration {
	return max(shortWait, time.Duration(2*float64(time.Second)/g.base))
}

// pace sets the bucket's rate to the least that anything allows.
func (g *gate) pace(now time.Time) {
	limit := min(g.base, g.backoff)
	if now.Before(g.quotaEnd) {
		limit = min(limit, g.quota)
	}
	if rate.Limit(limit) != g.tokens.Limit() {
		g.tokens.SetLimitAt(now, rate.Limit(limit))
	}
}

// silent tells whether nothing may be sent at this moment.
func (g *gate) silent(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until.After(now)
}

// refused is called when the host asks to be left alone: for d, or, when it does
// not say for how long, for between once and twice the usual pause.
func (g *gate) refused(now time.Time, d, usual time.Duration) *Parked {
	if d <= 0 {
		d = usual + rand.N(usual)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pauseUntil(now.Add(d))
	if now.Sub(g.eased) > shortWait { // the refusals of one moment are one refusal
		g.backoff = max(g.backoff/2, min(slowest, g.base))
	}
	g.eased = g.until
	return &Parked{Host: g.host, Until: g.until, Why: WhyRateLimited}
}

// answered is called with what the host says of its quota, if anything.
func (g *gate) answered(now time.Time, q quota) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.backoff < g.base && now.Sub(g.eased) >= recovery {
		g.backoff = min(g.base, g.backoff+g.base/recoverySteps)
		g.eased = now
	}
	if !q.known {
		return
	}
	g.quotaEnd = now.Add(q.reset)
	if q.remaining == 0 {
		g.quota = g.base
		g.pauseUntil(g.quotaEnd)
		return
	}
	g.quota = float64(q.remaining) / q.reset.Seconds()
}

func (g *gate) pauseUntil(t time.Time) {
	if !t.After(g.until) {
		return
	}
	g.until = t
	close(g.wake)
	g.wake = make(chan struct{})
}

// leave gives the slot back.
func (g *gate) leave() { <-g.slots }
