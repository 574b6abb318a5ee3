package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"
)

// Bounds of a group of changes. One is committed when any is reached.
const (
	defaultFlushEvery = 250 * time.Millisecond
	flushBytes        = 4 << 20
	flushChanges      = 500
)

// queueLen bounds the changes that wait for the writer. Whoever brings more
// waits: that is the back-pressure on everything that reads from the network.
const queueLen = 256

// maxHeld bounds the changes that wait for disk space outside the queue. It is
// above the number of repos in flight, so that a change that ends work is heard.
const maxHeld = 4096

// diskRecheck is how often a writer that waits for disk space looks again.
const diskRecheck = time.Second

var (
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("the store is closed")
	// ErrDiskFull says that less than the reserve of free disk is left.
	ErrDiskFull = errors.New("disk is full")
)

// refusal is a change's answer that it does not apply. It has written nothing,
// so that the other changes of its group go on.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(err error) error { return refusal{err} }

// change is one change, applied whole in one transaction.
type change struct {
	op     string // what it does, for errors
	apply  func(*group) error
	urgent bool // commit at once
	admin  bool // a user waits for it: refuse it while the disk is full
	ends   bool // it ends work: make it even then, it takes next to no room
	bytes  int
	done   func(error) // told the outcome after the commit; must not wait for anything
}

// do applies a change, commits it at once and returns when that is done. It does
// not return early when ctx ends, since the change may still be committed.
func (s *Store) do(ctx context.Context, op string, apply func(*group) error) error {
	return s.wait(ctx, change{op: op, apply: apply, urgent: true, admin: true})
}

func (s *Store) errFull(op string) error {
	return fmt.Errorf("%s: %w: less than %d MiB is free at %s", op, ErrDiskFull, s.cfg.Reserve>>20, s.cfg.Path)
}

// wait submits a change and waits until it is committed. Where nobody waits for
// the answer but the program itself, it returns when ctx ends: the change may
// still be committed then, so that nothing it has computed may be used.
func (s *Store) wait(ctx context.Context, c change) error {
	if c.admin && s.full.Load() && s.diskFull() {
		return s.errFull(c.op) // the writer waits for room, and would not get to it
	}
	done := make(chan error, 1)
	c.done = func(err error) { done <- err }
	if err := s.submit(ctx, c); err != nil {
		return err
	}
	if c.admin {
		return <-done
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", c.op, ctx.Err())
	}
}

// submit queues a change, waiting for room. Changes are applied in the order in
// which submit returned.
func (s *Store) submit(ctx context.Context, c change) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return fmt.Errorf("%s: %w", c.op, ErrClosed)
	}
	select {
	case s.queue <- c:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", c.op, ctx.Err())
	case <-s.stopped:
		return fmt.Errorf("%s: %w", c.op, s.Err())
	}
}

// write is the writer. It ends when the queue is closed and empty, or when a
// commit has failed: a file that could not be written is not written again.
func (s *Store) write() {
	defer close(s.stopped)
	var (
		pending []change
		bytes   int
		urgent  bool
		last    time.Time // of the last commit
		timer   = time.NewTimer(0)
	)
	defer timer.Stop()
	<-timer.C
	for {
		c, more := <-s.queue
		if !more {
			return
		}
		pending, bytes, urgent = append(pending[:0], c), c.bytes, c.urgent
		// The first change after a quiet time is committed soon, a steady stream
		// of them every flushEvery.
		timer.Reset(max(s.cfg.FlushEvery-time.Since(last), s.cfg.FlushEvery/16))
	gather:
		for !urgent && len(pending) < flushChanges && bytes < flushBytes {
			select {
			case c, more = <-s.queue:
				if !more {
					break gather
				}
				pending, bytes, urgent = append(pending, c), bytes+c.bytes, urgent || c.urgent
			case <-timer.C:
				break gather
			}
		}
		timer.Stop()
		// What is already there joins the group.
		for more && len(pending) < flushChanges && bytes < flushBytes && len(s.queue) > 0 {
			c = <-s.queue
			pending, bytes = append(pending, c), bytes+c.bytes
		}
		if !s.flush(&pending) {
			return
		}
		last = time.Now()
		clear(pending)
	}
}

// flush commits the changes as one group. While the disk is full only those that
// end work are committed; those that a user waits for are refused, and the others
// wait for room. It reports whether the writer can go on.
func (s *Store) flush(pending *[]change) bool {
	for s.diskFull() {
		held, ends := (*pending)[:0], []change(nil)
		for _, c := range *pending {
			switch {
			case c.ends:
				ends = append(ends, c)
			case c.admin:
				c.answer(s.errFull(c.op))
			default:
				held = append(held, c)
			}
		}
		*pending = held
		if len(ends) > 0 && !s.commitOrFail(ends) {
			s.refuseAll(held, s.Err())
			return false
		}
		if len(held) == 0 {
			return true
		}
		queue := s.queue
		if len(held) >= maxHeld {
			queue = nil
		}
		select {
		case c, more := <-queue:
			if more {
				*pending = append(*pending, c)
			}
		case <-s.quit:
			s.refuseAll(held, ErrDiskFull)
			*pending = held[:0]
			return true
		case <-time.After(diskRecheck):
		}
	}
	return s.commitOrFail(*pending)
}

// commitOrFail commits the changes, or stops the store for good.
func (s *Store) commitOrFail(pending []change) bool {
	err := s.commit(pending)
	if err == nil {
		return true
	}
	s.fail(err)
	s.refuseAll(pending, err)
	s.drain()
	return false
}

// refuseAll answers changes that are not made.
func (s *Store) refuseAll(pending []change, err error) {
	for _, c := range pending {
		c.answer(fmt.Errorf("%s: %w", c.op, err))
	}
}

// commit applies the changes in one transaction and answers them.
func (s *Store) commit(pending []change) error {
	refusals := make([]error, len(pending))
	err := s.db.Update(func(tx *bbolt.Tx) error {
		g, err := newGroup(tx, s.cfg.Now())
		if err != nil {
			return err
		}
		for i, c := range pending {
			var r refusal
			if err := c.apply(g); errors.As(err, &r) {
				refusals[i] = r.error
			} else if err != nil {
				return fmt.Errorf("%s: %w", c.op, err)
			}
		}
		if err := g.save(); err != nil {
			return err
		}
		return s.cfg.Hooks.beforeCommit()
	})
	if err == nil {
		err = s.cfg.Hooks.afterCommit()
	}
	if err != nil {
		return fmt.Errorf("commit to %s: %w", s.cfg.Path, err)
	}
	for i, c := range pending {
		c.answer(refusals[i])
	}
	return nil
}

// drain answers the changes that will not be made, until the queue is closed.
func (s *Store) drain() {
	s.drained.Go(func() {
		for c := range s.queue {
			c.answer(fmt.Errorf("%s: %w", c.op, s.Err()))
		}
	})
}

func (c change) answer(err error) {
	if c.done != nil {
		c.done(err)
	}
}

// group is one transaction of the writer, with the rows that many changes touch.
// They live no longer than the transaction.
type group struct {
	tx  *bbolt.Tx
	now time.Time

	nextRID, nextSeq uint64
	jobs             map[uint64]*Job
	counts           map[syntax.NSID]*Count
	collections      map[syntax.NSID]*collectionBuckets
	work             map[uint64]*workBuckets
}

func newGroup(tx *bbolt.Tx, now time.Time) (*group, error) {
	g := &group{
		tx: tx, now: now.UTC().Truncate(time.Second),
		jobs: map[uint64]*Job{}, counts: map[syntax.NSID]*Count{},
		collections: map[syntax.NSID]*collectionBuckets{}, work: map[uint64]*workBuckets{},
	}
	meta := tx.Bucket([]byte(metaBucket))
	var errRID, errSeq error
	g.nextRID, errRID = getMeta(meta, metaNextRID)
	g.nextSeq, errSeq = getMeta(meta, metaNextSeq)
	return g, errors.Join(errRID, errSeq)
}

// job returns the row of a job for change; it is written when the group ends.
func (g *group) job(seq uint64) (*Job, error) {
	if j := g.jobs[seq]; j != nil {
		return j, nil
	}
	j, err := jobs.get(jobs.bucket(g.tx), u64Key(seq))
	if errors.Is(err, ErrNotFound) {
		return nil, refuse(fmt.Errorf("job %d: %w", seq, ErrNotFound))
	}
	if err != nil {
		return nil, err
	}
	g.jobs[seq] = &j
	return &j, nil
}

// seq is the next number of the one global order of changes.
func (g *group) seq() uint64 {
	g.nextSeq++
	return g.nextSeq - 1
}

// save writes the rows that the group has gathered.
func (g *group) save() error {
	meta := g.tx.Bucket([]byte(metaBucket))
	err := errors.Join(putMeta(meta, metaNextRID, g.nextRID), putMeta(meta, metaNextSeq, g.nextSeq))
	for seq, j := range g.jobs {
		err = errors.Join(err, jobs.put(jobs.bucket(g.tx), u64Key(seq), *j))
	}
	for collection, n := range g.counts {
		err = errors.Join(err, counts.put(counts.bucket(g.tx), []byte(collection), *n))
	}
	return err
}
