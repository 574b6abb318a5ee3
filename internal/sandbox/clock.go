package sandbox

import (
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	// WorldStart is when the first accounts were made: 2024-01-01 in Unix
	// microseconds. All times of a world lie well in the past, because readers
	// refuse revs from the future.
	WorldStart = 1_704_067_200_000_000
	// worldSpan is how long the repos had been written to when the world began.
	worldSpan = 400 * 24 * int64(time.Hour/time.Microsecond)
	// tick is how far a clock moves on for each thing that needs a time of its
	// own. It is short so that a million commits do not lead into the future.
	tick = int64(time.Millisecond / time.Microsecond)
)

// clock is one repo's time. It moves only when it is asked, so that revs depend
// on the seed and the order of changes and on nothing else.
type clock struct {
	micros int64
	id     uint
}

// next is a TID later than all before it.
func (c *clock) next() syntax.TID {
	c.micros += tick
	return syntax.NewTID(c.micros, c.id)
}

// skipTo moves the clock forward; it never moves it back.
func (c *clock) skipTo(micros int64) {
	c.micros = max(c.micros, micros)
}

// datetime is the clock's time as records write it.
func (c *clock) datetime() string {
	return time.UnixMicro(c.micros).UTC().Format("2006-01-02T15:04:05.000Z")
}
