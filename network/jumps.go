package network

import (
	"sync"
	"time"
)

const (
	// maxDrift is how far the wall clock may move against the time that the
	// machine has been running before that is a jump: it slept, or was set.
	maxDrift = 5 * time.Second
	// afterJump is how long after a jump our own network is to be suspected: a
	// laptop that wakes has a running program before it has a network.
	afterJump = 10 * time.Second
)

// jumps notices that our own machine stood still. Nobody tells a program; but
// the wall clock goes on in a sleep, and the monotonic clock does not. (Where it
// does, a sleep goes unnoticed here, and is an outage like any other.)
type jumps struct {
	wall func() time.Time
	ran  func() time.Duration // since some moment, sleep left out

	mu    sync.Mutex
	begun time.Time
	drift time.Duration
	count int
	last  time.Duration // of ran, when the last jump was noticed
}

func newJumps() *jumps {
	start := time.Now()
	return &jumps{
		wall:  func() time.Time { return time.Now().Round(0) },
		ran:   func() time.Duration { return time.Since(start) },
		begun: start.Round(0),
	}
}

// look tells how many jumps there have been, and whether the last one is recent.
func (j *jumps) look() (count int, recent bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	ran := j.ran()
	drift := j.wall().Sub(j.begun) - ran
	if moved := drift - j.drift; moved > maxDrift || moved < -maxDrift {
		j.count++
		j.last = ran
	}
	// Followed all the time: a clock that is slewed is not one that jumps.
	j.drift = drift
	return j.count, j.count > 0 && ran-j.last < afterJump
}

// offset is how far the wall clock has moved against the time that the machine ran.
func (j *jumps) offset() time.Duration { return j.wall().Sub(j.begun) - j.ran() }

// since tells whether a jump, in the time since count was told or shortly
// before, may be what went wrong.
func (j *jumps) since(count int) bool {
	now, recent := j.look()
	return recent || now != count
}
