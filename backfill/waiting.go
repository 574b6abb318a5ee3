package backfill

import (
	"context"
	"sync"
	"time"

	"appview/internal/network"
)

const (
	// waitLogged is how long nothing more is logged of a wait that ends and begins anew.
	waitLogged = 10 * time.Minute
	// waitLapses is that of a wait for the directory: who was to be looked up may have been
	// settled without it.
	waitLapses = maxBackoff + time.Minute
)

// Wait is what a job waits for that needs the relay or the directory.
type Wait struct {
	Host   network.Host // the relay or the directory
	Since  time.Time    // when it first was not answered
	Until  time.Time    // when it is asked again
	Answer string       // what came last from there, or instead of an answer
}

// serviceWait is how long a job has waited for the relay or the directory.
type serviceWait struct {
	what   string        // for logs
	lapses time.Duration // after the time of the next question, a wait that nothing has ended is over; 0: it is not

	mu     sync.Mutex
	wait   Wait
	noted  time.Time // when the wait was last confirmed
	logged time.Time // when its beginning was last logged
	told   bool      // of the wait under way
}

// begin notes that the service has not answered.
func (s *serviceWait) begin(ctx context.Context, w *worker, host network.Host, until time.Time, answer string) {
	now := w.b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lasts(now) {
		s.wait.Since = now
	}
	s.wait.Host, s.wait.Until, s.noted = host, until, now
	if answer != "" {
		s.wait.Answer = answer
	}
	if !s.told && (s.logged.IsZero() || now.Sub(s.logged) > waitLogged) {
		s.told, s.logged = true, now
		w.log.WarnContext(ctx, "job waits", "for", s.what, "host", host, "until", until, "err", s.wait.Answer)
	}
}

// end notes that a question that was asked at some time was answered. What was asked
// before the service last did not answer says nothing.
func (s *serviceWait) end(ctx context.Context, w *worker, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.Host == "" || asked.Before(s.noted) {
		return
	}
	if s.told {
		w.log.InfoContext(ctx, "job waits no more", "for", s.what, "host", s.wait.Host, "took", w.b.now().Sub(s.wait.Since).Round(time.Second))
	}
	s.wait, s.told = Wait{}, false
}

// drop ends a wait in which nothing was answered: nobody asks any more.
func (s *serviceWait) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait, s.told = Wait{}, false
}

// reset begins a wait anew: it was our own network that was gone.
func (s *serviceWait) reset(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait.Host != "" {
		s.wait.Since = now
	}
}

// lasts reports whether the job waits. The caller holds the lock.
func (s *serviceWait) lasts(now time.Time) bool {
	return s.wait.Host != "" && (s.lapses == 0 || now.Before(s.wait.Until.Add(s.lapses)))
}

// now is the wait at a moment, if there is one.
func (s *serviceWait) now(now time.Time) (Wait, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait, s.lasts(now)
}

// exhausted reports whether the wait has lasted longer than any. It then goes on until
// the service answers.
func (s *serviceWait) exhausted(now time.Time) (Wait, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lasts(now) || now.Sub(s.wait.Since) <= maxLimited {
		return Wait{}, false
	}
	s.wait.Until = now
	return s.wait, true
}
