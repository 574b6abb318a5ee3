package network

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// bodyBudget is what all bodies together may hold, each past its first freeBody.
	bodyBudget = 128 << 20
	// carBudget is the same for repos. It is apart because a repo is held until
	// its records are stored, and no page should wait for that.
	carBudget = 256 << 20
)

// budget bounds the bytes of all bodies together, past the first few of each.
//
// Bodies grow in steps and hold what they have while they ask for more, so a
// plain semaphore could end with everybody waiting for everybody. Here a body
// that finds the pool empty waits for the single reserve, which is as large as
// the largest body may become: its holder can always finish, and when it has,
// the next one can.
type budget struct {
	pool    *semaphore.Weighted
	reserve *semaphore.Weighted
	waiting atomic.Int32 // bodies that wait for the reserve
	inUse   atomic.Int64 // bytes that bodies hold, of pool and reserve
}

// newBudget shares total bytes; the reserve for one body of the largest size is part of them.
func newBudget(total, largest int64) *budget {
	return &budget{pool: semaphore.NewWeighted(max(total-largest, 0)), reserve: semaphore.NewWeighted(1)}
}

// grant is what one body holds of the budget. Its zero value but for b holds nothing.
type grant struct {
	b        *budget
	held     int64 // of the pool
	all      int64 // of pool and reserve
	reserved bool
}

// grow asks for n more bytes, and waits for them under ctx.
func (g *grant) grow(ctx context.Context, n int64) error {
	if g.reserved {
		g.took(n)
		return nil
	}
	if g.b.pool.TryAcquire(n) {
		g.held += n
		g.took(n)
		return nil
	}
	g.b.waiting.Add(1)
	defer g.b.waiting.Add(-1)
	if err := g.b.reserve.Acquire(ctx, 1); err != nil {
		return err
	}
	g.reserved = true
	g.took(n)
	return nil
}

func (g *grant) took(n int64) {
	g.all += n
	g.b.inUse.Add(n)
}

// wanted tells whether others wait for what is held.
func (g *grant) wanted() bool {
	return g.reserved || g.held > 0 && g.b.waiting.Load() > 0
}

// release gives everything back.
func (g *grant) release() {
	if g.held > 0 {
		g.b.pool.Release(g.held)
	}
	if g.reserved {
		g.b.reserve.Release(1)
	}
	if g.all > 0 {
		g.b.inUse.Add(-g.all)
	}
	g.held, g.all, g.reserved = 0, 0, false
}
