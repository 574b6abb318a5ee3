package kv

import (
	"context"
	"errors"
	"fmt"
)

// Backpressure: bounds of what waits for the writer. Whoever brings more waits, and with
// that everything that reads from the network.
const (
	queueLen       = 256
	maxQueuedBytes = 64 << 20
	endsLen        = 16
)

// refusal is a change's answer that it does not apply. It has written nothing,
// so that the other changes of its group go on.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Refuse is what a change returns that does not apply, and has written nothing: the
// other changes of its group go on. Whoever brought it is told err.
func Refuse(err error) error { return refusal{err} }

// ErrAgain is what a change returns that is done in part: what it has done is to be
// committed, and the change made again in the next transaction.
var ErrAgain = errors.New("done in part")

// Change is one change, made whole in one transaction.
type Change struct {
	Op    string // what it does, for errors
	Apply func(*Tx) error
	Bytes int         // that it brings, estimated
	Done  func(error) // told the outcome after the commit; must not wait for anything

	Urgent      bool // commit at once
	Interactive bool // a user waits for it: refuse it while the disk is full, unless
	EndsWork    bool // it ends work: make it even then, it takes next to no room
}

// Do submits a change and waits until it is committed. Where nobody waits for
// the answer but the program itself, it returns when ctx ends: the change may
// still be committed then, so that nothing it has computed may be used.
func (db *DB) Do(ctx context.Context, c Change) error {
	if c.Interactive && !c.EndsWork && db.full.Load() && db.stillFull() {
		return db.errFull(c.Op) // the writer waits for room, and would not get to it
	}
	done := make(chan error, 1)
	c.Done = func(err error) { done <- err }
	if err := db.Submit(ctx, c); err != nil {
		return err
	}
	if c.Interactive {
		return <-done
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", c.Op, ctx.Err())
	}
}

// stillFull reports whether the disk is full now.
func (db *DB) stillFull() bool {
	db.checkDisk()
	return db.full.Load()
}

// Write is Do with a result, which there is only of a change that is committed.
func Write[T any](ctx context.Context, db *DB, c Change, apply func(*Tx) (T, error)) (T, error) {
	var result, none T // result is the writer's until then
	c.Apply = func(tx *Tx) (err error) {
		result, err = apply(tx)
		return err
	}
	if err := db.Do(ctx, c); err != nil {
		return none, err
	}
	return result, nil
}

// Submit queues a change, waiting for room. Changes are applied in the order in
// which Submit returned, except that those that end work overtake the others
// while these wait for disk space.
func (db *DB) Submit(ctx context.Context, c Change) error {
	db.closing.RLock()
	defer db.closing.RUnlock()
	if db.closed {
		return fmt.Errorf("%s: %w", c.Op, ErrClosed)
	}
	queue := db.queue
	if c.EndsWork && db.full.Load() {
		queue = db.ends
	}
	if c.Bytes = min(c.Bytes, maxQueuedBytes); c.Bytes > 0 { // what brings nothing waits for nobody who does
		if err := db.queuedBytes.Acquire(ctx, int64(c.Bytes)); err != nil {
			return fmt.Errorf("%s: %w", c.Op, err)
		}
	}
	select {
	case queue <- c:
		return nil
	case <-ctx.Done():
		db.queuedBytes.Release(int64(c.Bytes))
		return fmt.Errorf("%s: %w", c.Op, ctx.Err())
	case <-db.stopped:
		db.queuedBytes.Release(int64(c.Bytes))
		return fmt.Errorf("%s: %w", c.Op, db.Err())
	}
}

// Flush has the changes that were queued be committed without waiting for company:
// whoever could bring more waits for them.
func (db *DB) Flush() {
	select {
	case db.flushNow <- struct{}{}:
	default: // it has been told
	}
}

// answer tells whoever brought a change what came of it.
func (db *DB) answer(c Change, err error) {
	db.queuedBytes.Release(int64(c.Bytes))
	if c.Done != nil {
		c.Done(err)
	}
}

// answerAll answers changes that are committed. It returns those that were done in
// part, which are not answered yet.
func (db *DB) answerAll(pending []Change, results []error) (again []Change) {
	for i, c := range pending {
		if errors.Is(results[i], ErrAgain) {
			again = append(again, c)
		} else {
			db.answer(c, results[i])
		}
	}
	return again
}

// refuseAll answers changes that are not made.
func (db *DB) refuseAll(pending []Change, err error) {
	for _, c := range pending {
		db.answer(c, fmt.Errorf("%s: %w", c.Op, err))
	}
}
