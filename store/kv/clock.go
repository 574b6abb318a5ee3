package kv

import (
	"errors"
	"time"
)

// A clock of the file's own tells how long something has been kept. A wall
// clock may be a year ahead for an hour: by that, all that is kept for some weeks
// would be deleted in the hour, and what was written in it be kept for a year. The
// file's clock goes on with the time that the process runs, which no setting of the
// wall clock changes, and with what has passed between two processes, of which only
// the wall clock knows, as far as that can be believed. Rows show the wall clock's
// time to users, and are in no other way gone by.

// maxGap is how much of the time between two processes is believed.
const maxGap = 24 * time.Hour

// Names of meta rows of the clock: its time, and the wall's when that was written.
const (
	metaSteady = "clock"
	metaWall   = "clock_wall"
)

// clock is the file's own. It belongs to the writer.
type clock struct {
	steady time.Time
	last   time.Time // when it was looked at last
}

// tick brings the clock to now.
func (c *clock) tick(now time.Time, tx *Tx) error {
	passed := max(now.Sub(c.last), 0)
	if c.last.IsZero() {
		stored, wall, err := tx.storedClock()
		if err != nil {
			return err
		}
		if stored.IsZero() { // it begins now
			stored, wall = now, now
		}
		c.steady, passed = stored, min(max(now.Sub(wall), 0), maxGap)
	}
	c.steady, c.last = c.steady.Add(passed), now
	return nil
}

// storedClock is the clock as it was written last; zero, if it never was.
func (tx *Tx) storedClock() (steady, wall time.Time, err error) {
	if tx.Bucket([]byte(metaBucket)).Get([]byte(metaSteady)) == nil {
		return steady, wall, nil
	}
	at, errSteady := tx.Meta(metaSteady)
	by, errWall := tx.Meta(metaWall)
	return time.Unix(int64(at), 0).UTC(), time.Unix(int64(by), 0).UTC(), errors.Join(errSteady, errWall)
}

// save writes the clock. Times before 1970 are the first moment of it.
func (c *clock) save(tx *Tx) error {
	return errors.Join(
		tx.PutMeta(metaSteady, uint64(max(c.steady.Unix(), 0))),
		tx.PutMeta(metaWall, uint64(max(c.last.Unix(), 0))),
	)
}

// StoredClock is the file's own clock as it was written last, for reads; zero, if it
// never was.
func (tx *Tx) StoredClock() (time.Time, error) {
	steady, _, err := tx.storedClock()
	return steady, err
}

// RunningClock is the file's own clock at the moment of a read, as far as can be told
// without the writer, whose clock stands still between its commits: a wall clock that is
// set since the last one takes it along.
func (tx *Tx) RunningClock() (time.Time, error) {
	steady, wall, err := tx.storedClock()
	return steady.Add(max(tx.wall().Sub(wall), 0)), err
}
