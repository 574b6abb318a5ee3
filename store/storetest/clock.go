package storetest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Clock is a wall clock that is set as tests like. What passes, which programs
// measure by the other clock of the machine, is right all the same.
type Clock struct{ ahead atomic.Int64 }

// Now is what the clock shows.
func (c *Clock) Now() time.Time { return Jumped(time.Now(), time.Duration(c.ahead.Load())) }

// Set sets the clock to be ahead of the right time.
func (c *Clock) Set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

// Jumped is a time as a clock gives it that has been set forward by a number of
// whole seconds, or back: no function makes one.
func Jumped(t time.Time, by time.Duration) time.Time {
	const nanosecondBits = 30 // of time.Time's first word; the seconds are above
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << nanosecondBits
	return t
}
