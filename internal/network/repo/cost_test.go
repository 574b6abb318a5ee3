package repo

import (
	"testing"
	"time"
)

const (
	// wantedCost is what a byte of a CAR may take of the processor: half a second a MiB.
	wantedCost = 500 * time.Millisecond / (1 << 20)
	// leastCost is what no input is too small for, on a machine that does other things.
	leastCost = 50 * time.Millisecond
)

// wantCheap runs what reads so many bytes, and wants it to take no longer than these may.
// The machine may have been busy: what takes too long may try again.
func wantCheap(tb testing.TB, bytes int, read func()) {
	tb.Helper()
	allowed := leastCost + wantedCost*time.Duration(bytes)
	took := time.Duration(0)
	for range 3 {
		began := time.Now()
		read()
		if took = time.Since(began); took <= allowed {
			return
		}
	}
	tb.Errorf("%d bytes take %s, want at most %s", bytes, took, allowed)
}
