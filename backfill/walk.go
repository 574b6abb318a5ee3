package backfill

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

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
}

// errLater says that a repo is to stay in its queue as it is for now.
var errLater = errors.New("not now")

// walk takes the repos of one queue that are due, in order, and has do work on up
// to width of them at once, until a pass over the queue finds none, or the host
// has to be left alone. do calls the hand's done exactly once.
//
// It returns when there may be more to do: the zero time if the queue is empty.
// Everything it has handed out is committed by then; moved is how many of the
// repos something became of.
func (w *worker) walk(ctx context.Context, host string, width int, do func(context.Context, hand)) (next time.Time, moved int, err error) {
	for {
		p := pass{w: w, host: host}
		err := p.run(ctx, width, do)
		moved += p.moved
		switch {
		case err != nil:
			return time.Time{}, moved, err
		case !p.parked.IsZero():
			return p.parked, moved, nil
		case p.moved == 0:
			return p.next, moved, nil
		}
	}
}

// pass is one pass over a queue.
type pass struct {
	w    *worker
	host string
	next time.Time // the earliest time at which a row that was passed over is due

	mu     sync.Mutex
	parked time.Time // the host asks to be left alone until then
	failed error
	moved  int            // hands of which something became
	open   sync.WaitGroup // hands not given back yet
}

func (p *pass) run(ctx context.Context, width int, do func(context.Context, hand)) error {
	var g errgroup.Group
	g.SetLimit(width)
	after := syntax.DID("")
	for p.goOn(ctx) {
		rows, err := p.w.b.cfg.Store.Owed(ctx, p.w.seq, p.host, after, walkPage)
		if err != nil || len(rows) == 0 {
			p.fail(err)
			break
		}
		for _, row := range rows {
			after = row.DID
			if !p.goOn(ctx) {
				break
			}
			now := p.w.b.cfg.Now()
			if !due(row, now) {
				p.mu.Lock()
				p.later(row.NotBefore)
				p.mu.Unlock()
				continue
			}
			p.open.Add(1)
			h := hand{Owed: row, done: p.back}
			g.Go(func() error { do(ctx, h); return nil })
		}
	}
	_ = g.Wait() // its functions return nil
	p.open.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return p.failed
}

func (p *pass) goOn(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ctx.Err() == nil && p.failed == nil && p.parked.IsZero()
}

// later notes when a row that stays in the queue is due.
func (p *pass) later(t time.Time) {
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
}

func (p *pass) fail(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// back takes a repo back. It is called by the store's writer among others, so it
// waits for nothing.
func (p *pass) back(err error) {
	defer p.open.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	var parked *network.Parked
	switch {
	case err == nil, errors.Is(err, store.ErrStale):
		p.moved++
	case errors.As(err, &parked):
		p.parked = parked.Until
	case errors.Is(err, errLater), errors.Is(err, store.ErrRevWentBack):
		// Another job is reading it, or has read something newer just now.
		p.later(p.w.b.cfg.Now().Add(claimedPause))
	case p.failed == nil:
		p.failed = err
	}
}
