package network

import (
	"time"

	"golang.org/x/time/rate"
)

// lane is a quota of its own at a host. The reference PDS counts getRepo apart
// from everything else: when one is spent, the other may not be. A host that
// answers 429 is left alone on all lanes.
type lane int

const (
	laneOrdinary lane = iota
	laneRepo
	lanes
)

// paced is what a host says is left of a lane's quota.
type paced struct {
	tokens *rate.Limiter
	rate   float64   // requests a second that the quota allows…
	end    time.Time // …until it is full again
	spent  time.Time // nothing is left before
}

// payment is what a request took out of the buckets for its turn.
type payment []*rate.Reservation

func (p payment) delay(now time.Time) time.Duration {
	var d time.Duration
	for _, r := range p {
		d = max(d, r.DelayFrom(now))
	}
	return d
}

func (p payment) refund(now time.Time) {
	for _, r := range p {
		r.CancelAt(now)
	}
}
