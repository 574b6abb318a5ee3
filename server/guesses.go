package server

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"appview/server/answer"
)

// A key that could be one and never was is a guess. The key is looked up first, so that a
// good one is answered at once, whoever else tries keys from the same address: behind a
// proxy all clients have one. Only then the answer to a wrong one is kept back.
const (
	// guessBurst is how many guesses of an address are answered at once.
	guessBurst = 10
	// guessEvery is in what time another one is.
	guessEvery = 250 * time.Millisecond
	// guessPatience is the longest that an answer is kept back.
	guessPatience = 5 * time.Second
	// maxGuesses is how many answers are kept back at a time, over all addresses.
	maxGuesses = 64
	// maxGuessers is of how many addresses it is known when they have guessed. All others
	// count as one.
	maxGuessers = 4096
)

// guesses decides how long answers to wrong keys are kept back.
type guesses struct {
	every    time.Duration
	patience time.Duration

	mu      sync.Mutex
	due     map[netip.Addr]time.Time // when an address has made up for its guesses
	others  time.Time                // likewise for the addresses that have found no room in due
	swept   time.Time                // when due was last rid of those that have
	waiting int                      // answers that are kept back
}

func newGuesses() *guesses {
	return &guesses{every: guessEvery, patience: guessPatience, due: map[netip.Addr]time.Time{}}
}

// reserve counts a guess and returns for how long its answer is kept back. If that is not
// zero, release has to be called in the end. ok is false if it would be too long, or too
// many are kept back already.
func (g *guesses) reserve(from netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due, known := g.due[from]
	isOther := !known && !g.hasRoom(now)
	if isOther {
		due = g.others
	}
	if due.Before(now) {
		due = now
	}
	due = due.Add(g.every)
	wait = max(0, due.Sub(now)-guessBurst*g.every)
	if wait > g.patience || wait > 0 && g.waiting >= maxGuesses {
		return 0, false
	}
	if wait > 0 {
		g.waiting++
	}
	if isOther {
		g.others = due
	} else {
		g.due[from] = due
	}
	return wait, true
}

// hasRoom reports whether another address can be remembered. The caller holds the lock.
func (g *guesses) hasRoom(now time.Time) bool {
	if len(g.due) < maxGuessers {
		return true
	}
	if now.Sub(g.swept) < g.every {
		return false // to look at all of them takes a while
	}
	g.swept = now
	for at, due := range g.due {
		if !due.After(now) {
			delete(g.due, at)
		}
	}
	return len(g.due) < maxGuessers
}

func (g *guesses) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

// slowGuess keeps the refusal of a wrong key back if its address has guessed before.
// Meanwhile its connection is the first to give way to others. Past the bounds the
// refusal is another one, which comes at once and ends the connection.
func (s *Server) slowGuess(r *http.Request, refusal error) error {
	e, is := errors.AsType[keyError](refusal)
	if !is || !e.guessed {
		return refusal
	}
	wait, ok := s.guesses.reserve(addressOfClient(r), time.Now())
	if !ok {
		return tooManyGuesses(e, s.guesses.patience)
	}
	if wait == 0 {
		return refusal
	}
	defer s.guesses.release()
	markGuess(r, true)
	defer markGuess(r, false)
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-late.C:
	case <-r.Context().Done():
	case <-answer.Stopping(r):
	}
	return refusal
}

func tooManyGuesses(e keyError, after time.Duration) error {
	f := answer.Failure{Status: http.StatusTooManyRequests, Text: e.why + ", and too many wrong keys have come from this address: try again later"}
	f.Header("Retry-After", strconv.Itoa(max(1, int(after.Seconds()))))
	f.Header("Connection", "close")
	return f
}

// addressOfClient is what counts as the address of a client: none over a socket.
func addressOfClient(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addressOf(at.Addr())
}
