package polite

import (
	"sync"
	"time"
)

const (
	// maxDrift is how far the wall clock may move against the time that the
	// machine has been running before that is a jump: it slept, or was set.
	maxDrift = 5 * time.Second
	// suspectAfter is how long after a jump our own network is to be suspected: a
	// laptop that wakes has a running program before it has a network.
	suspectAfter = 10 * time.Second
)

// clockEpoch numbers the times between two jumps of the clock.
type clockEpoch int

// suspendDetector detects that the machine was suspended. Nobody tells a program; but
// the wall clock goes on in a sleep, and the monotonic clock does not. (Where it
// does, a sleep is not detected here, and is an outage like any other.)
type suspendDetector struct {
	wall func() time.Time
	ran  func() time.Duration // since some moment, sleep left out

	mu     sync.Mutex
	begun  time.Time
	drift  time.Duration
	epoch  clockEpoch
	jumped time.Duration // of ran, when the last jump was detected
}

func newSuspendDetector() *suspendDetector {
	start := time.Now()
	return &suspendDetector{
		wall:  func() time.Time { return time.Now().Round(0) },
		ran:   func() time.Duration { return time.Since(start) },
		begun: start.Round(0),
	}
}

// check compares the clocks. It returns the epoch, and whether that began a short time ago.
func (d *suspendDetector) check() (epoch clockEpoch, recent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ran := d.ran()
	drift := d.wall().Sub(d.begun) - ran
	if moved := drift - d.drift; moved > maxDrift || moved < -maxDrift {
		d.epoch++
		d.jumped = ran
	}
	// Followed all the time: a clock that is slewed is not one that jumps.
	d.drift = drift
	return d.epoch, d.epoch > 0 && ran-d.jumped < suspectAfter
}

// offset is how far the wall clock has moved against the time that the machine ran.
func (d *suspendDetector) offset() time.Duration { return d.wall().Sub(d.begun) - d.ran() }

// suspectedSince reports whether a jump, since an epoch or shortly before its check, may be
// what went wrong.
func (d *suspendDetector) suspectedSince(epoch clockEpoch) bool {
	now, recent := d.check()
	return recent || now != epoch
}
