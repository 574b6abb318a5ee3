package backfill

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/store/index"
	"appview/store/jobs"
)

const (
	// scanPage is how many rows of a queue are in memory at a time.
	scanPage = 64
	// claimedPause is when to come back to a repo that another job is reading.
	claimedPause = 100 * time.Millisecond
)

// errLater says that a repo is to stay in its queue as it is for now.
var errLater = errors.New("not now")

// scanResult is how the scan of a queue ended.
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

// scan takes the repos of a queue that are due, and has a pool work on them, up to width
// at once. It walks the queue again while the results of what it has taken are being
// committed: rows of these are passed over. How many they are is bounded by the queue
// and the groups of the store's writer, which the pool waits for.
type scan struct {
	w     *worker
	keys  keyRange
	width int
	do    func(context.Context, task) // calls the task's done exactly once
	until time.Time                   // the end of its turn; zero: it has none

	added <-chan struct{} // something was put into the queue; nil: that is not waited for
	slot  *slot           // lent to others while nothing is left to do but to wait for commits; nil: none is needed
	// chosen says which rows are taken, due or not, in one walk; nil: those that are due.
	chosen func(jobs.Owed) bool

	progressed atomic.Bool
	free       chan struct{} // a task was given back, or the pool rests

	mu       sync.Mutex
	open     map[syntax.DID]struct{}  // tasks not given back yet
	closed   map[syntax.DID]struct{}  // given back since the last page was asked for: the page may not show it
	later    map[syntax.DID]time.Time // rows that stay as they are, and are not to be taken before
	next     time.Time                // the earliest time at which a row that stays in the queue is due
	again    bool                     // a row was passed over that may be due
	parked   time.Time                // the host asks to be left alone until then
	failed   error
	ended    int  // tasks of which something became
	working  int  // tasks in the pool, and one for a walk
	counted  bool // among the scans that Backfill counts
	turnOver bool
}

// run scans the queue until a walk over it finds nothing due and every task is
// committed, or until the host has to be left alone, or others are to have their turn.
// Every task is committed when it returns, unless ctx has ended.
func (s *scan) run(ctx context.Context) (scanResult, error) {
	s.free = make(chan struct{}, 1)
	s.open, s.closed, s.later = map[syntax.DID]struct{}{}, map[syntax.DID]struct{}{}, map[syntax.DID]time.Time{}
	p := pool{size: s.width, tasks: make(chan task), do: func(t task) {
		s.do(ctx, t)
		s.work(-1)
	}}
	slotLost := false
	for more := true; more; {
		if slotLost = !s.slot.take(); slotLost {
			break
		}
		s.work(1)
		ended := s.walk(ctx, &p)
		s.work(-1)
		more = s.await(ctx, ended)
	}
	p.wait()
	err := s.awaitTasks(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	result := scanResult{progressed: s.progressed.Load()}
	switch {
	case err != nil:
		return result, err
	case s.failed != nil:
		return result, s.failed
	case !s.parked.IsZero():
		result.next, result.parked = s.parked, true
	case s.turnOver, slotLost: // there may be more to do
		result.next = s.w.b.now()
	default:
		result.next = s.next
	}
	return result, nil
}

// walk goes over the queue once and gives what is due to the pool. It returns how many
// tasks had ended when it began.
func (s *scan) walk(ctx context.Context, p *pool) (ended int) {
	s.mu.Lock()
	ended, s.next, s.again = s.ended, time.Time{}, false
	s.mu.Unlock()
	after, end := s.keys.after, false
	for s.mayGoOn(ctx) && !end {
		s.beginPage()
		rows, err := s.w.b.cfg.Store.Work.Owed(ctx, s.w.seq, s.keys.host, after, scanPage)
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
				p.give(task{Owed: row, done: func(err error) { s.giveBack(row.DID, err) }, progressed: func() { s.progressed.Store(true) }})
			}
		}
	}
	return ended
}

// await waits until the queue is to be walked again. It reports whether it is. ended is
// how many tasks had ended when the last walk began.
func (s *scan) await(ctx context.Context, ended int) bool {
	if s.chosen != nil {
		return false
	}
	for s.mayGoOn(ctx) {
		s.mu.Lock()
		open, resting, next := len(s.open), s.working == 0, s.next
		more := s.again || s.ended > ended // a row that was postponed is due some time
		s.mu.Unlock()
		if open == 0 {
			return more
		}
		if resting {
			s.slot.lend()
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(max(next.Sub(s.w.b.now()), minPause))
		}
		select {
		case <-s.free:
			continue
		case <-s.added:
		case <-timer:
		case <-ctx.Done():
			return false
		}
		return true
	}
	return false
}

// beginPage is called before a page of the queue is read.
func (s *scan) beginPage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.closed)
}

// take reports whether a row is due and no task yet, and makes it one.
func (s *scan) take(row jobs.Owed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.open[row.DID]; open {
		return false
	}
	if _, closed := s.closed[row.DID]; closed {
		s.again = true
		return false
	}
	if s.chosen != nil {
		if !s.chosen(row) {
			return false
		}
	} else if now := s.w.b.now(); s.later[row.DID].After(now) {
		s.noteDue(s.later[row.DID])
		return false
	} else if !due(row, now) {
		// By the running clock from here on, not by that of the file.
		s.noteDue(now.Add(row.NotBefore.Sub(now)))
		return false
	}
	delete(s.later, row.DID)
	s.open[row.DID] = struct{}{}
	s.working++
	return true
}

// work counts what keeps the scan busy. When no scan is, what they have brought is
// committed at once: nobody adds to it before.
func (s *scan) work(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working += n
	switch busy := s.working > 0; {
	case busy && !s.counted:
		s.w.b.scans.Add(1)
	case !busy && s.counted:
		notify(s.free)
		if s.w.b.scans.Add(-1) == 0 {
			s.w.b.cfg.Store.Flush()
		}
	}
	s.counted = s.working > 0
}

// awaitTasks waits until all tasks are given back. What is given back after the end
// of ctx changes nothing but the scan.
func (s *scan) awaitTasks(ctx context.Context) error {
	for {
		s.mu.Lock()
		open := len(s.open)
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
	s.turnOver = !s.until.IsZero() && s.w.b.now().After(s.until)
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
func (s *scan) giveBack(did syntax.DID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, did)
	s.closed[did] = struct{}{}
	notify(s.free)
	var parked *network.Parked
	switch {
	case err == nil, errors.Is(err, jobs.ErrStale):
		s.ended++
		s.progressed.Store(true)
	case errors.As(err, &parked):
		s.parked = parked.Until
	case errors.Is(err, errLater), errors.Is(err, index.ErrRevWentBack), errors.Is(err, index.ErrNotTheEnd), errors.Is(err, index.ErrUndone):
		// Another job is reading it, or has found out something newer just now.
		s.later[did] = s.w.b.now().Add(claimedPause)
		s.noteDue(s.later[did])
	case s.failed == nil:
		s.failed = err
	}
}
