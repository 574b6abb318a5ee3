package polite

import (
	"time"

	"golang.org/x/time/rate"
)

// Scope is what one rate limit of a host covers. The reference PDS counts getRepo apart
// from everything else: when one quota is spent, the other may not be. A host that
// answers 429 is left alone in all scopes.
type Scope int

// The scopes.
const (
	ScopeOrdinary Scope = iota
	ScopeRepo           // getRepo
	scopes
)

// quotaState is what a host says is left of a scope's quota.
type quotaState struct {
	tokens     *rate.Limiter
	rate       float64   // requests a second that the quota allows…
	fullAt     time.Time // …until it is full again
	spentUntil time.Time // nothing is left before
}

// reservation is the tokens that a request took from the buckets.
type reservation []*rate.Reservation

func (r reservation) delay(now time.Time) time.Duration {
	var d time.Duration
	for _, token := range r {
		d = max(d, token.DelayFrom(now))
	}
	return d
}

func (r reservation) cancel(now time.Time) {
	for _, token := range r {
		token.CancelAt(now)
	}
}
