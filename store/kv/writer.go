package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.etcd.io/bbolt"
)

// Group commit: bounds of a group of changes. One is committed when any is reached.
const (
	defaultFlushEvery = 250 * time.Millisecond
	flushBytes        = 4 << 20
	// MaxGroup is how many changes are committed together.
	MaxGroup = 500
)

// diskRecheck is how often a writer that waits for disk space looks again.
const diskRecheck = time.Second

// write is the writer. It ends when the queue is closed and empty, or when a
// commit has failed: a file that could not be written is not written again.
func (db *DB) write() {
	defer close(db.stopped)
	var (
		again []Change  // done in part, to go on with first
		last  time.Time // of the last commit
		timer = time.NewTimer(0)
	)
	defer timer.Stop()
	<-timer.C
	for {
		pending, more := db.gather(again, last, timer)
		if len(pending) > 0 {
			var ok bool
			if again, ok = db.flush(pending); !ok {
				return
			}
			last = time.Now()
		}
		if !more && len(again) == 0 {
			if again = db.takeEnds(); len(again) > 0 {
				continue
			}
			if len(db.last) > 0 {
				db.flush(db.last)
			}
			return
		}
	}
}

// gather waits for changes and returns those of the next group. It reports
// whether more may come.
func (db *DB) gather(again []Change, last time.Time, timer *time.Timer) (pending []Change, more bool) {
	bytes, urgent := 0, len(again) > 0
	take := func(c Change, ok bool) bool {
		if ok {
			pending, bytes, urgent = append(pending, c), bytes+c.Bytes, urgent || c.Urgent
		}
		return ok
	}
	if pending = again; len(pending) == 0 {
		select {
		case c, ok := <-db.queue:
			if !take(c, ok) {
				return nil, false
			}
		case c := <-db.ends:
			take(c, true)
		}
	}
	// The first change after a quiet time is committed soon, a steady stream of
	// them every FlushEvery.
	timer.Reset(max(db.cfg.FlushEvery-time.Since(last), db.cfg.FlushEvery/16))
	defer timer.Stop()
	for !urgent && len(pending) < MaxGroup && bytes < flushBytes {
		select {
		case c, ok := <-db.queue:
			if !take(c, ok) {
				return pending, false
			}
		case c := <-db.ends:
			take(c, true)
		case <-timer.C:
			urgent = true
		case <-db.flushNow:
			urgent = true
		}
	}
	// What is already there joins the group.
	for len(pending) < MaxGroup && bytes < flushBytes {
		select {
		case c, ok := <-db.queue:
			if !take(c, ok) {
				return pending, false
			}
		default:
			return pending, true
		}
	}
	return pending, true
}

// flush commits the changes as one group, and returns those that were done in
// part. While the disk is full only changes that end work are committed; those
// that a user waits for are refused, and the others wait for room. It reports
// whether the writer can go on.
//
// The disk is full when less than the reserve is free. It is full, too, when a
// commit finds no room in spite of that, since somebody else has filled the disk in
// between, or a quota is used up: bbolt has written nothing but pages that are free
// in what was committed last, so that the group can be made again. A commit whose
// sync has failed is never made again: the system may have forgotten what it could
// not write, and say at the next sync that all is well.
func (db *DB) flush(pending []Change) (again []Change, ok bool) {
	for {
		if err := db.checkWritable(); err != nil {
			return db.stop(pending, err)
		}
		if low := db.checkDisk(); !low {
			results, err := db.commit(pending)
			if err == nil {
				db.setNoSpace(false) // before anybody hears that it was made
				return db.answerAll(pending, results), true
			}
			if !errors.Is(err, errNoSpace) {
				return db.stop(pending, err)
			}
			db.setNoSpace(true)
		}
		var err error
		if pending, err = db.flushEnds(pending); err != nil {
			return db.stop(pending, err)
		}
		if len(pending) == 0 {
			db.setNoSpace(false) // nothing is held that would find out when there is room
			return nil, true
		}
		select {
		case c := <-db.ends:
			pending = append(pending, c)
		case <-db.quit:
			db.refuseAll(pending, ErrDiskFull)
			return nil, true
		case <-time.After(diskRecheck):
		}
	}
}

// flushEnds commits those of the changes that end work, refuses those that a user
// waits for, and returns those that wait for room.
func (db *DB) flushEnds(pending []Change) (held []Change, err error) {
	var ends []Change
	for _, c := range pending {
		switch {
		case c.EndsWork:
			ends = append(ends, c)
		case c.Interactive:
			db.answer(c, db.errFull(c.Op))
		default:
			held = append(held, c)
		}
	}
	if len(ends) == 0 {
		return held, nil
	}
	results, err := db.commit(ends)
	switch {
	case errors.Is(err, errNoSpace):
		// Not even for this.
		db.setNoSpace(true)
		for _, c := range ends {
			if c.Interactive {
				db.answer(c, db.errFull(c.Op))
			} else {
				held = append(held, c)
			}
		}
		return held, nil
	case err != nil:
		return append(held, ends...), err
	default:
		db.answerAll(ends, results)
		return held, nil
	}
}

// checkWritable is why nothing may be written any more, if that is so.
func (db *DB) checkWritable() error {
	select {
	case <-db.failed:
		return db.Err()
	default:
		return db.inPlace()
	}
}

// stop ends the writer for good.
func (db *DB) stop(pending []Change, err error) ([]Change, bool) {
	db.fail(err)
	db.refuseAll(pending, err)
	db.drain()
	return nil, false
}

// commit applies the changes in one transaction. It returns what each came to.
func (db *DB) commit(pending []Change) (results []error, err error) {
	results = make([]error, len(pending))
	began := time.Now()
	id := 0
	err = guard(func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return db.apply(tx, pending, results)
		})
	})
	if err != nil {
		err = db.repeatable(id, err)
	} else {
		err = db.cfg.Hooks.afterCommit()
	}
	if err != nil {
		return nil, fmt.Errorf("commit to %s: %w", db.cfg.Path, err)
	}
	db.observe(pending, time.Since(began))
	return results, nil
}

// apply makes the changes in a transaction, and notes what each came to.
func (db *DB) apply(in *bbolt.Tx, pending []Change, results []error) error {
	now := db.cfg.Now()
	tx := &Tx{Tx: in, hooks: db.cfg.Hooks, Now: now.UTC().Truncate(time.Second)}
	if err := db.clock.tick(now, tx); err != nil {
		return err
	}
	tx.Steady = db.clock.steady.UTC().Truncate(time.Second)
	for i, c := range pending {
		var r refusal
		switch err := c.Apply(tx); {
		case errors.As(err, &r):
			results[i] = r.error
		case errors.Is(err, ErrAgain):
			results[i] = ErrAgain
		case err != nil:
			return fmt.Errorf("%s: %w", c.Op, err)
		}
	}
	if err := errors.Join(tx.save(), db.clock.save(tx)); err != nil {
		return err
	}
	db.cfg.Hooks.making(pending, results)
	return db.cfg.Hooks.beforeCommit()
}

// errNoSpace says that a commit found no room on the disk, and that the file is as it
// was before.
var errNoSpace = errors.New("no room")

// repeatable is the error of a failed commit, and errNoSpace if it may be made again: it
// found no room while it wrote pages, and the meta page that would make them count is
// not there, though its writing may have failed halfway.
func (db *DB) repeatable(id int, err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) || at.Op != "write" || !isNoSpace(at.Err) {
		return err
	}
	last := id
	errView := guard(func() error {
		return db.view(func(tx *Tx) error { last = tx.ID(); return nil })
	})
	if errView != nil || last >= id {
		return errors.Join(err, errView)
	}
	return fmt.Errorf("%w: %w", errNoSpace, err)
}

// takeEnds are the changes that were to overtake the others and have not. Once the queue is
// closed, there come no more.
func (db *DB) takeEnds() (list []Change) {
	for {
		select {
		case c := <-db.ends:
			list = append(list, c)
		default:
			return list
		}
	}
}

// drain answers the changes that will not be made, until the queue is closed.
func (db *DB) drain() {
	db.drained.Go(func() {
		for {
			select {
			case c, ok := <-db.queue:
				if !ok {
					db.refuseAll(append(db.takeEnds(), db.last...), db.Err())
					return
				}
				db.answer(c, fmt.Errorf("%s: %w", c.Op, db.Err()))
			case c := <-db.ends:
				db.answer(c, fmt.Errorf("%s: %w", c.Op, db.Err()))
			}
		}
	})
}
