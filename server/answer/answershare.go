package answer

import (
	"math"
	"sync"
	"time"
)

const (
	// Piece is how many bytes are handed to the system at once.
	Piece = 64 << 10
	// answerGrace is for how long an answer's client is waited for before the answer may
	// have to give way: until then nobody knows how fast it is taken.
	answerGrace = 100 * time.Millisecond
	// answerCredit is what a client counts as having taken when it is first waited for, so
	// that new answers do not give way before those that have long been taken slowly.
	answerCredit = Piece
	// answerWindow is how far back a rate looks, more or less: a client that has taken
	// much, and then takes nothing, is soon slow. The system asks for more in steps that
	// take a slow client seconds, which the window has to be longer than.
	answerWindow = 4 * time.Second
	// answerFast is how many bytes a second are taken of an answer that has not to give way:
	// the longest page ends by itself in two seconds then.
	answerFast = PageBytes / 2
	// answerBlocked is how long a write takes only if the system has no room for it.
	answerBlocked = 5 * time.Millisecond
	// answerMinRate is how many bytes a second a client must take of its answer, beside
	// the time that each answer has, though nobody waits.
	answerMinRate = 16 << 10
)

// answerShare is what one answer has of the budget, and how fast its client takes it.
type answerShare struct {
	budget *answerBudget
	public bool                  // has to wait, and gives way before those that have not
	abort  func()                // breaks the connection; must not wait
	extend func(d time.Duration) // gives the client so much more time, from the beginning of the answer on; nil: there is no end

	// Guarded by the budget's lock.
	held     int64
	printing bool
	cut      bool

	mu     sync.Mutex // may be taken while the budget's is held
	broken bool       // abort was called
	sent   int        // bytes written
	since  time.Time  // when the piece was begun that waits for the client; zero: none does
	full   bool       // the system has had no room: what it has taken since, the client has made room for
	waited time.Duration
	taken  float64 // bytes, the older ones of which count less
}

// taking is how fast an answer is taken.
type taking struct {
	rate   float64       // bytes a second, over the time in which the client was waited for
	waited time.Duration // how long that was
}

// slower reports whether t gives way before o.
func (t taking) slower(o taking) bool {
	return t.rate < o.rate || t.rate == o.rate && t.waited > o.waited
}

// beginPiece notes that a piece of the answer waits for the client.
func (s *answerShare) beginPiece() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
}

// endPiece notes that so much of the piece was taken.
func (s *answerShare) endPiece(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := time.Since(s.since)
	s.since = time.Time{}
	s.waited += d
	s.taken = s.taken*fade(d) + float64(bytes)
	if d >= answerBlocked && !s.full { // so far it has filled the system's buffer
		s.full, s.waited, s.taken = true, d, answerCredit*fade(d)
	}
	// Each new deadline costs something, so short answers have none of their own.
	if s.sent += bytes; s.sent > bytes && s.extend != nil && !s.broken {
		s.extend(time.Duration(s.sent) * time.Second / answerMinRate)
	}
}

// taking is how fast the answer is taken now.
func (s *answerShare) taking() taking {
	s.mu.Lock()
	defer s.mu.Unlock()
	waited, taken := s.waited, s.taken
	if !s.since.IsZero() {
		d := time.Since(s.since)
		waited += d
		taken *= fade(d)
		if d >= answerBlocked && !s.full {
			waited, taken = d, answerCredit*fade(d)
		}
	}
	if waited <= 0 {
		return taking{rate: math.Inf(1)}
	}
	return taking{rate: taken / (answerWindow.Seconds() * (1 - fade(waited))), waited: waited}
}

// fade is how much less bytes count after a while.
func fade(d time.Duration) float64 { return math.Exp(-d.Seconds() / answerWindow.Seconds()) }

// breakOff breaks the connection, for good.
func (s *answerShare) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = true
	s.abort()
}
