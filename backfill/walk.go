package backfill

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/store"
)

const (
	// walkPage is how many rows of a queue are in memory at a time.
	walkPage = 64
	// claimedPause is when to come back to a repo that another job is reading.
	claimedPause = 100 * time.Millisecond
)

// hand is a repo that a walk has taken out of a queue.
type hand struct {
	store.Owed
	// done gives the repo back after the commit of what became of it, or with
	// the reason why nothing became of it.
	done func(error)
	// gotOn notes that some of the repo is committed, though not all.
	gotOn func()
}

// errLater says that a repo is to stay in its queue as it is for now.
var errLater = errors.New("not now")

// walked is how a walk over a queue ended.
type walked struct {
	next   time.Time // when there may be more to do; zero: when something is put into the queue
	parked bool      // next is when the host may be asked again, whatever is put into the queue
	gotOn  bool      // something became of a repo
}

// span is the part of a host's queue that is walked: what stands behind after and
// before end. Without an end it goes on to the queue's.
type span struct {
	host       string
	after, end syntax.DID
}

// walk takes the repos of a queue that are due, in order, and has do work on up
// to width of them at once, until a pass over the queue finds none, the host has
// to be left alone, or others are to have their turn. do calls the hand's done
// exactly once. Everything that was handed out is committed when walk returns,
// unless ctx has ended.
func (w *worker) walk(ctx context.Context, s span, width int, do func(context.Context, hand)) (walked, error) {
	var end walked
	for until := w.b.now().Add(w.b.cfg.Turn); ; {
		p := pass{w: w, span: s, until: until, free: make(chan struct{}, 1)}
		err := p.run(ctx, width, do)
		end.gotOn = end.gotOn || p.gotOn.Load()
		switch {
		case err != nil:
			return end, err
		case !p.parked.IsZero():
			end.next, end.parked = p.parked, true
			return end, nil
		case p.late:
			end.next = w.b.now()
			return end, nil
		case p.moved == 0:
			end.next = p.next
			return end, nil
		}
	}
}

// pass is one pass over a queue.
type pass struct {
	w     *worker
	span  span
	until time.Time
	late  bool // until is over
	// chosen says which rows are handed out, due or not; nil: those that are due.
	chosen func(store.Owed) bool
	gotOn  atomic.Bool

	mu     sync.Mutex
	next   time.Time // the earliest time at which a row that stays in the queue is due
	parked time.Time // the host asks to be left alone until then
	failed error
	moved  int // hands of which something became
	open   int // hands not given back yet
	free   chan struct{}
}

func (p *pass) run(ctx context.Context, width int, do func(context.Context, hand)) error {
	p.w.b.walking.Add(1)
	c := crew{most: width, do: func(h hand) { do(ctx, h) }, hands: make(chan hand)}
	after, end := p.span.after, false
	for p.goOn(ctx) && !end {
		rows, err := p.w.b.cfg.Store.Owed(ctx, p.w.seq, p.span.host, after, walkPage)
		if err != nil || len(rows) == 0 {
			p.fail(err)
			break
		}
		for _, row := range rows {
			after = row.DID
			if end = p.span.end != "" && row.DID >= p.span.end; end || !p.goOn(ctx) {
				break
			}
			if p.take(row) {
				c.give(hand{Owed: row, done: p.back, gotOn: func() { p.gotOn.Store(true) }})
			}
		}
	}
	c.wait()
	if p.w.b.walking.Add(-1) == 0 {
		p.w.b.cfg.Store.Flush() // nobody brings anything before this is committed
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// crew does work on hands with up to so many goroutines. They stay for the next hand:
// to read a repo takes a deep stack, and a new goroutine would have to grow one.
type crew struct {
	most  int
	do    func(hand)
	hands chan hand

	there   int
	working sync.WaitGroup
}

// give waits until somebody is free, and hands over.
func (c *crew) give(h hand) {
	if c.there < c.most {
		select {
		case c.hands <- h:
			return
		default:
		}
		c.there++
		c.working.Go(func() {
			c.do(h)
			for h := range c.hands {
				c.do(h)
			}
		})
		return
	}
	c.hands <- h
}

// wait waits until all that was given is done.
func (c *crew) wait() {
	close(c.hands)
	c.working.Wait()
}

// take reports whether a row is due, and counts it as handed out if it is.
func (p *pass) take(row store.Owed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chosen != nil {
		if !p.chosen(row) {
			return false
		}
	} else if now := p.w.b.now(); !due(row, now) {
		// By the running clock from here on, not by that of the file.
		p.later(now.Add(row.NotBefore.Sub(now)))
		return false
	}
	p.open++
	return true
}

// settle waits until all hands are given back. What is given back after the end
// of ctx changes nothing but the pass.
func (p *pass) settle(ctx context.Context) error {
	for {
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		if open == 0 {
			return nil
		}
		select {
		case <-p.free:
		case <-ctx.Done():
		}
	}
}

func (p *pass) goOn(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = p.w.b.now().After(p.until)
	return ctx.Err() == nil && p.failed == nil && p.parked.IsZero() && !p.late
}

// later notes when a row that stays in the queue is due.
func (p *pass) later(t time.Time) {
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
}

func (p *pass) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// back takes a repo back. It is called by the store's writer among others, so it
// waits for nothing.
func (p *pass) back(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open--; p.open == 0 {
		notify(p.free)
	}
	var parked *network.Parked
	switch {
	case err == nil, errors.Is(err, store.ErrStale):
		p.moved++
		p.gotOn.Store(true)
	case errors.As(err, &parked):
		p.parked = parked.Until
	case errors.Is(err, errLater), errors.Is(err, store.ErrRevWentBack), errors.Is(err, store.ErrNotTheEnd), errors.Is(err, store.ErrUndone):
		// Another job is reading it, or has found out something newer just now.
		p.later(p.w.b.now().Add(claimedPause))
	case p.failed == nil:
		p.failed = err
	}
}
