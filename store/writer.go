package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"
)

// Bounds of a group of changes. One is committed when any is reached.
const (
	defaultFlushEvery = 250 * time.Millisecond
	flushBytes        = 4 << 20
	flushChanges      = 500
)

// Bounds of what waits for the writer. Whoever brings more waits: that is the
// back-pressure on everything that reads from the network.
const (
	queueLen       = 256
	maxQueuedBytes = 64 << 20
	endsLen        = 16
)

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
	admin  bool // a user waits for it: refuse it while the disk is full, unless
	ends   bool // it ends work: make it even then, it takes next to no room
	bytes  int
	done   func(error) // told the outcome after the commit; must not wait for anything
	queued *semaphore.Weighted
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
	if c.admin && !c.ends && s.full.Load() && s.diskFull() {
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
// which submit returned, except that those that end work overtake the others
// while these wait for disk space.
func (s *Store) submit(ctx context.Context, c change) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return fmt.Errorf("%s: %w", c.op, ErrClosed)
	}
	queue := s.queue
	if c.ends && s.full.Load() {
		queue = s.ends
	}
	if c.bytes = min(c.bytes, maxQueuedBytes); c.bytes > 0 { // what brings nothing waits for nobody who does
		if err := s.queued.Acquire(ctx, int64(c.bytes)); err != nil {
			return fmt.Errorf("%s: %w", c.op, err)
		}
	}
	c.queued = s.queued
	select {
	case queue <- c:
		return nil
	case <-ctx.Done():
		s.queued.Release(int64(c.bytes))
		return fmt.Errorf("%s: %w", c.op, ctx.Err())
	case <-s.stopped:
		s.queued.Release(int64(c.bytes))
		return fmt.Errorf("%s: %w", c.op, s.Err())
	}
}

// Hurry has the changes that were queued be committed without waiting for company:
// whoever could bring more waits for them.
func (s *Store) Hurry() {
	select {
	case s.hurry <- struct{}{}:
	default: // it has been told
	}
}

// write is the writer. It ends when the queue is closed and empty, or when a
// commit has failed: a file that could not be written is not written again.
func (s *Store) write() {
	defer close(s.stopped)
	var (
		again []change  // done in part, to go on with first
		last  time.Time // of the last commit
		timer = time.NewTimer(0)
	)
	defer timer.Stop()
	<-timer.C
	for {
		pending, more := s.gather(again, last, timer)
		if len(pending) > 0 {
			var ok bool
			if again, ok = s.flush(pending); !ok {
				return
			}
			last = time.Now()
		}
		if !more && len(again) == 0 {
			if again = s.late(); len(again) > 0 {
				continue
			}
			s.lastWords()
			return
		}
	}
}

// gather waits for changes and returns those of the next group. It reports
// whether more may come.
func (s *Store) gather(again []change, last time.Time, timer *time.Timer) (pending []change, more bool) {
	bytes, urgent := 0, len(again) > 0
	take := func(c change, ok bool) bool {
		if ok {
			pending, bytes, urgent = append(pending, c), bytes+c.bytes, urgent || c.urgent
		}
		return ok
	}
	if pending = again; len(pending) == 0 {
		select {
		case c, ok := <-s.queue:
			if !take(c, ok) {
				return nil, false
			}
		case c := <-s.ends:
			take(c, true)
		}
	}
	// The first change after a quiet time is committed soon, a steady stream of
	// them every FlushEvery.
	timer.Reset(max(s.cfg.FlushEvery-time.Since(last), s.cfg.FlushEvery/16))
	defer timer.Stop()
	for !urgent && len(pending) < flushChanges && bytes < flushBytes {
		select {
		case c, ok := <-s.queue:
			if !take(c, ok) {
				return pending, false
			}
		case c := <-s.ends:
			take(c, true)
		case <-timer.C:
			urgent = true
		case <-s.hurry:
			urgent = true
		}
	}
	// What is already there joins the group.
	for len(pending) < flushChanges && bytes < flushBytes {
		select {
		case c, ok := <-s.queue:
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
func (s *Store) flush(pending []change) (again []change, ok bool) {
	for {
		if err := s.fit(); err != nil {
			return s.giveUp(pending, err)
		}
		if low := s.look(); !low {
			results, err := s.commit(pending)
			if err == nil {
				s.cramp(false) // before anybody hears that it was made
				return answer(pending, results), true
			}
			if !errors.Is(err, errNoRoom) {
				return s.giveUp(pending, err)
			}
			s.cramp(true)
		}
		var err error
		if pending, err = s.flushEnds(pending); err != nil {
			return s.giveUp(pending, err)
		}
		if len(pending) == 0 {
			s.cramp(false) // nothing is held that would find out when there is room
			return nil, true
		}
		select {
		case c := <-s.ends:
			pending = append(pending, c)
		case <-s.quit:
			s.refuseAll(pending, ErrDiskFull)
			return nil, true
		case <-time.After(diskRecheck):
		}
	}
}

// cramp notes whether changes are held because a commit has found no room.
func (s *Store) cramp(is bool) {
	if s.cramped.Swap(is) != is {
		s.look()
	}
}

// flushEnds commits those of the changes that end work, refuses those that a user
// waits for, and returns those that wait for room.
func (s *Store) flushEnds(pending []change) (held []change, err error) {
	var ends []change
	for _, c := range pending {
		switch {
		case c.ends:
			ends = append(ends, c)
		case c.admin:
			c.answer(s.errFull(c.op))
		default:
			held = append(held, c)
		}
	}
	if len(ends) == 0 {
		return held, nil
	}
	results, err := s.commit(ends)
	switch {
	case errors.Is(err, errNoRoom):
		// Not even for this.
		s.cramp(true)
		for _, c := range ends {
			if c.admin {
				c.answer(s.errFull(c.op))
			} else {
				held = append(held, c)
			}
		}
		return held, nil
	case err != nil:
		return append(held, ends...), err
	default:
		answer(ends, results)
		return held, nil
	}
}

// fit tells why nothing may be written any more.
func (s *Store) fit() error {
	select {
	case <-s.failed:
		return s.Err()
	default:
		return s.inPlace()
	}
}

// giveUp stops the store for good.
func (s *Store) giveUp(pending []change, err error) ([]change, bool) {
	s.fail(err)
	s.refuseAll(pending, err)
	s.drain()
	return nil, false
}

// refuseAll answers changes that are not made.
func (s *Store) refuseAll(pending []change, err error) {
	for _, c := range pending {
		c.answer(fmt.Errorf("%s: %w", c.op, err))
	}
}

// commit applies the changes in one transaction. It returns what each came to.
func (s *Store) commit(pending []change) (results []error, err error) {
	results = make([]error, len(pending))
	began := time.Now()
	id := 0
	err = guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return s.apply(tx, pending, results)
		})
	})
	if err != nil {
		err = s.unwritten(id, err)
	} else {
		err = s.cfg.Hooks.afterCommit()
	}
	if err != nil {
		return nil, fmt.Errorf("commit to %s: %w", s.cfg.Path, err)
	}
	s.cfg.observe(pending, time.Since(began))
	return results, nil
}

// answer answers changes that are committed. It returns those that were done in
// part, which are not answered yet.
func answer(pending []change, results []error) (again []change) {
	for i, c := range pending {
		if errors.Is(results[i], errAgain) {
			again = append(again, c)
		} else {
			c.answer(results[i])
		}
	}
	return again
}

// apply makes the changes in a transaction, and notes what each came to.
func (s *Store) apply(tx *bbolt.Tx, pending []change, results []error) error {
	g, err := newGroup(tx, s.cfg.Now(), &s.clock)
	if err != nil {
		return err
	}
	g.hooks = s.cfg.Hooks
	for i, c := range pending {
		var r refusal
		switch err := c.apply(g); {
		case errors.As(err, &r):
			results[i] = r.error
		case errors.Is(err, errAgain):
			results[i] = errAgain
		case err != nil:
			return fmt.Errorf("%s: %w", c.op, err)
		}
	}
	if err := g.save(); err != nil {
		return err
	}
	s.cfg.Hooks.making(pending, results)
	return s.cfg.Hooks.beforeCommit()
}

// errNoRoom says that a commit found no room on the disk, and that the file is as it
// was before.
var errNoRoom = errors.New("no room")

// unwritten tells whether a failed commit may be made again: it found no room while
// it wrote pages, and the meta page that would make them count is not there, though
// its writing may have failed halfway.
func (s *Store) unwritten(id int, err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) || at.Op != "write" || !noSpace(at.Err) {
		return err
	}
	last := id
	errView := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { last = tx.ID(); return nil })
	})
	if errView != nil || last >= id {
		return errors.Join(err, errView)
	}
	return fmt.Errorf("%w: %w", errNoRoom, err)
}

// late are the changes that were to overtake the others and have not. Once the queue is
// closed, there come no more.
func (s *Store) late() (list []change) {
	for {
		select {
		case c := <-s.ends:
			list = append(list, c)
		default:
			return list
		}
	}
}

// drain answers the changes that will not be made, until the queue is closed.
func (s *Store) drain() {
	s.drained.Go(func() {
		for {
			select {
			case c, ok := <-s.queue:
				if !ok {
					s.refuseAll(s.late(), s.Err())
					return
				}
				c.answer(fmt.Errorf("%s: %w", c.op, s.Err()))
			case c := <-s.ends:
				c.answer(fmt.Errorf("%s: %w", c.op, s.Err()))
			}
		}
	})
}

func (c change) answer(err error) {
	c.queued.Release(int64(c.bytes))
	if c.done != nil {
		c.done(err)
	}
}

// group is one transaction of the writer, with the rows that many changes touch.
// They live no longer than the transaction.
type group struct {
	tx     *bbolt.Tx
	now    time.Time // by the wall clock, for users
	steady time.Time // by the store's own, for what is kept for a while
	clock  *clock
	hooks  Hooks

	nextRID, nextSeq uint64
	jobs             map[uint64]*Job
	counted          map[uint64]counted // of jobs, before the group changed them
	counts           map[syntax.NSID]*Count
	collections      map[syntax.NSID]*collectionBuckets
	work             map[uint64]*workBuckets
	purges           []purgeRow // not done yet, once they were asked for
	purgesRead       bool
}

func newGroup(tx *bbolt.Tx, now time.Time, c *clock) (*group, error) {
	meta := tx.Bucket([]byte(metaBucket))
	if err := c.tick(now, meta); err != nil {
		return nil, err
	}
	g := &group{
		tx: tx, now: now.UTC().Truncate(time.Second), steady: c.steady.UTC().Truncate(time.Second), clock: c,
		jobs: map[uint64]*Job{}, counted: map[uint64]counted{}, counts: map[syntax.NSID]*Count{},
		collections: map[syntax.NSID]*collectionBuckets{}, work: map[uint64]*workBuckets{},
	}
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
	g.jobs[seq], g.counted[seq] = &j, countedOf(&j)
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
	err := errors.Join(putMeta(meta, metaNextRID, g.nextRID), putMeta(meta, metaNextSeq, g.nextSeq), g.clock.save(meta))
	err = errors.Join(err, g.saveTotals())
	for _, seq := range slices.Sorted(maps.Keys(g.jobs)) {
		j := g.jobs[seq]
		err = errors.Join(err, jobs.put(jobs.bucket(g.tx), u64Key(seq), *j), g.keepUnfinished(j))
	}
	for _, w := range g.work {
		for host, h := range w.changed {
			err = errors.Join(err, hostRows.put(w.hosts, []byte(host), *h))
		}
	}
	for collection, n := range g.counts {
		err = errors.Join(err, counts.put(counts.bucket(g.tx), []byte(collection), *n))
	}
	return err
}
