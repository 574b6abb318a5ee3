package backfill

import (
	"math/rand/v2"
	"time"

	"appview/backfill/read"
	"appview/store/jobs"
)

// maxBackoff is the longest wait between two attempts at the same thing.
const maxBackoff = 2 * time.Minute

// backoff is the wait after the given number of failed attempts: base, doubled
// with each, no longer than maxBackoff, give or take a quarter so that what
// failed together is not tried together.
func backoff(base time.Duration, attempts int) time.Duration {
	d := base
	for i := 1; i < attempts && d < maxBackoff; i++ {
		d *= 2
	}
	d = min(d, maxBackoff)
	return d - d/4 + rand.N(d/2+1)
}

// due reports whether an attempt may be made now. A time in the file that is
// further away than any backoff was written by a clock that has been set since:
// nothing waits for it.
func due(o jobs.Owed, now time.Time) bool {
	wait := o.NotBefore.Sub(now)
	return wait <= 0 || wait > 2*maxBackoff
}

// isFresh reports whether a look-up of that time need not be made again.
func (w *worker) isFresh(t time.Time) bool {
	now := w.b.now()
	return w.since(t, now) && now.Sub(t) <= read.MaxLookUpAge
}

// since reports whether a time in the file was written by this worker. What another
// clock has written, in the time before or in what it took for the future, says
// nothing about how long something has lasted.
func (w *worker) since(t, now time.Time) bool {
	return !t.Before(w.began.Truncate(time.Second)) && !t.After(now)
}
