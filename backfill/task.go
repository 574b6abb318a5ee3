package backfill

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/transport"
	"appview/store"
)

const (
	// scanPage is how many rows of a queue are in memory at a time.
	scanPage = 64
	// claimedPause is when to come back to a repo that another job is reading.
	claimedPause = 100 * time.Millisecond
)

// task is a repo that a scan has taken out of a queue.
type task struct {
	store.Owed
	// done gives the repo back after the commit of what became of it, or with
	// the reason why nothing became of it.
	done func(error)
	// progressed notes that some of the repo is committed, though not all.
	progressed func()
}

// errLater says that a repo is to stay in its queue as it is for now.
var errLater = errors.New("not now")

// scanResult is how the scans of a queue ended.
type scanResult struct {
	next       time.Time // when there may be more to do; zero: when something is put into the queue
	parked     bool      // next is when the host may be asked again, whatever is put into the queue
	progressed bool      // something became of a repo
}

// keyRange is a part of a host's queue: what stands behind after and before end. Without
// an end it goes on to the queue's.
type keyRange struct {
	host       string
	after, end syntax.DID
}

// scanQueue takes the repos of a queue that are due, in order, and has do work on up
// to width of them at once, until a scan of the queue finds none, the host has
// to be left alone, or others are to have their turn. do calls the task's done
// exactly once. Every task is committed when scanQueue returns, unless ctx has ended.
func (w *worker) scanQueue(ctx context.Context, keys keyRange, width int, do func(context.Context, task)) (scanResult, error) {
	var result scanResult
	for until := w.b.now().Add(w.b.cfg.Turn); ; {
		s := scan{w: w, keys: keys, until: until, free: make(chan struct{}, 1)}
		err := s.run(ctx, width, do)
		result.progressed = result.progressed || s.progressed.Load()
		switch {
		case err != nil:
			return result, err
		case !s.parked.IsZero():
			result.next, result.parked = s.parked, true
			return result, nil
		case s.turnOver:
			result.next = w.b.now()
			return result, nil
		case s.ended == 0:
			result.next = s.next
			return result, nil
		}
	}
}

// scan is one scan of a queue.
type scan struct {
	w        *worker
	keys     keyRange
	until    time.Time
	turnOver bool // until is over
	// chosen says which rows are taken, due or not; nil: those that are due.
	chosen     func(store.Owed) bool
	progressed atomic.Bool

	mu     sync.Mutex
	next   time.Time // the earliest time at which a row that stays in the queue is due
	parked time.Time // the host asks to be left alone until then
	failed error
	ended  int // tasks of which something became
	open   int // tasks not given back yet
	free   chan struct{}
}

// run takes the rows of the queue, and has a pool work on those that are due.
func (s *scan) run(ctx context.Context, width int, do func(context.Context, task)) error {
	s.w.b.scans.Add(1)
	p := pool{size: width, do: func(t task) { do(ctx, t) }, tasks: make(chan task)}
	after, end := s.keys.after, false
	for s.mayGoOn(ctx) && !end {
		rows, err := s.w.b.cfg.Store.Owed(ctx, s.w.seq, s.keys.host, after, scanPage)
		if err != nil || len(rows) == 0 {
			s.fail(err)
			break
		}
		for _, row := range rows {
			after = row.DID
			if end = s.keys.end != "" && row.DID >= s.keys.end; end || !s.mayGoOn(ctx) {
				break
			}
			if s.take(row) {
				p.give(task{Owed: row, done: s.giveBack, progressed: func() { s.progressed.Store(true) }})
			}
		}
	}
	p.wait()
	if s.w.b.scans.Add(-1) == 0 {
		s.w.b.cfg.Store.Flush() // nobody brings anything before this is committed
	}
	if err := s.awaitTasks(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// pool works on tasks with up to so many goroutines. They stay for the next task:
// to read a repo takes a deep stack, and a new goroutine would have to grow one.
type pool struct {
	size  int
	do    func(task)
	tasks chan task

	started int
	running sync.WaitGroup
}

// give hands a task to a goroutine, and waits until one is free.
func (p *pool) give(t task) {
	if p.started < p.size {
		select {
		case p.tasks <- t:
			return
		default:
		}
		p.started++
		p.running.Go(func() {
			p.do(t)
			for t := range p.tasks {
				p.do(t)
			}
		})
		return
	}
	p.tasks <- t
}

// wait waits until all tasks are done.
func (p *pool) wait() {
	close(p.tasks)
	p.running.Wait()
}

// take reports whether a row is due, and counts it as a task if it is.
func (s *scan) take(row store.Owed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chosen != nil {
		if !s.chosen(row) {
			return false
		}
	} else if now := s.w.b.now(); !due(row, now) {
		// By the running clock from here on, not by that of the file.
		s.noteDue(now.Add(row.NotBefore.Sub(now)))
		return false
	}
	s.open++
	return true
}

// awaitTasks waits until all tasks are given back. What is given back after the end
// of ctx changes nothing but the scan.
func (s *scan) awaitTasks(ctx context.Context) error {
	for {
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		if open == 0 {
			return nil
		}
		select {
		case <-s.free:
		case <-ctx.Done():
		}
	}
}

func (s *scan) mayGoOn(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnOver = s.w.b.now().After(s.until)
	return ctx.Err() == nil && s.failed == nil && s.parked.IsZero() && !s.turnOver
}

// noteDue notes when a row that stays in the queue is due.
func (s *scan) noteDue(t time.Time) {
	if s.next.IsZero() || t.Before(s.next) {
		s.next = t
	}
}

func (s *scan) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
}

// giveBack takes a task back. It is called by the store's writer among others, so it
// waits for nothing.
func (s *scan) giveBack(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 {
		notify(s.free)
	}
	var parked *network.Parked
	switch {
	case err == nil, errors.Is(err, store.ErrStale):
		s.ended++
		s.progressed.Store(true)
	case errors.As(err, &parked):
		s.parked = parked.Until
	case errors.Is(err, errLater), errors.Is(err, store.ErrRevWentBack), errors.Is(err, store.ErrNotTheEnd), errors.Is(err, store.ErrUndone):
		// Another job is reading it, or has found out something newer just now.
		s.noteDue(s.w.b.now().Add(claimedPause))
	case s.failed == nil:
		s.failed = err
	}
}

// readTask claims a repo, has it read, and hands its settlement to the store. It reports
// whether the host gave the repo.
func (w *worker) readTask(ctx context.Context, t task) (given bool) {
	if w.b.cfg.Store.Denied(t.DID, t.Host) {
		w.settleWithout(ctx, t, t.Owed, outcome.ReasonDenied, false)
		return false
	}
	if !w.b.claims.take(t.DID) {
		w.silence.excuse(t.Host, w.b.now().Add(2*claimedPause))
		t.done(errLater)
		return false
	}
	defer w.b.claims.release(t.DID)
	w.silence.ask(t.Host)
	got := w.reader.Read(transport.WithProgress(ctx, func() { w.healthy(t.Host) }), t.Owed)
	if got.Steps > 0 {
		t.progressed()
	}
	if got.Answered {
		w.healthy(t.Host)
	}
	if got.Err != nil {
		w.endAttempt(ctx, t, got)
		return false
	}
	w.settle(ctx, t, got.Settlement, got.Records, got.Release)
	return true
}
