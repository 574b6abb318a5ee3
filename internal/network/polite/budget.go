package polite

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Budget bounds the bytes of all bodies together, past the first few of each, and
// those of their files.
//
// Bodies grow in steps and hold what they have while they ask for more, so a
// plain semaphore could end with everybody waiting for everybody. Here a body
// that finds the pool empty waits for the single reserve, which is as large as
// the largest body may become, in memory and on the disk: its holder can always
// finish, and when it has, the next one can.
type Budget struct {
	pool    *semaphore.Weighted
	disk    *semaphore.Weighted
	reserve *semaphore.Weighted
	waiting atomic.Int32 // bodies that wait for the reserve
	inUse   atomic.Int64 // bytes of memory that bodies have, of pool and reserve
}

// NewBudget shares total bytes; the reserve for one body of the largest size is part
// of them. No body has a file.
func NewBudget(total, largest int64) *Budget { return NewSpooledBudget(total, largest, 0, 0) }

// NewSpooledBudget is NewBudget with as much for files.
func NewSpooledBudget(total, largest, disk, largestFile int64) *Budget {
	return &Budget{
		pool: semaphore.NewWeighted(max(total-largest, 0)), disk: semaphore.NewWeighted(max(disk-largestFile, 0)),
		reserve: semaphore.NewWeighted(1),
	}
}

// InUse is how many bytes of memory are taken.
func (b *Budget) InUse() int64 { return b.inUse.Load() }

// Grant begins the grant of one body, which has nothing yet.
func (b *Budget) Grant() Grant { return Grant{b: b} }

// Grant is what one body has of a budget.
type Grant struct {
	b        *Budget
	pooled   int64 // of the pool
	spooled  int64 // of the disk
	all      int64 // of pool and reserve
	reserved bool
}

// Grow asks for n more bytes of memory, and waits for them under ctx.
func (g *Grant) Grow(ctx context.Context, n int64) error {
	got, err := g.acquire(ctx, g.b.pool, n)
	if err != nil {
		return err
	}
	g.pooled += got
	g.all += n
	g.b.inUse.Add(n)
	return nil
}

// Spool is Grow for n more bytes of a file.
func (g *Grant) Spool(ctx context.Context, n int64) error {
	got, err := g.acquire(ctx, g.b.disk, n)
	g.spooled += got
	return err
}

// acquire takes n of the pool, or else the reserve. It returns how many it took of
// the pool.
func (g *Grant) acquire(ctx context.Context, pool *semaphore.Weighted, n int64) (int64, error) {
	switch {
	case g.reserved:
		return 0, nil
	case pool.TryAcquire(n):
		return n, nil
	}
	g.b.waiting.Add(1)
	defer g.b.waiting.Add(-1)
	if err := g.b.reserve.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	g.reserved = true
	return 0, nil
}

// Contended reports whether others wait for what this body has.
func (g *Grant) Contended() bool {
	return g.reserved || g.pooled+g.spooled > 0 && g.b.waiting.Load() > 0
}

// Release gives everything back. It may be called twice.
func (g *Grant) Release() {
	if g.pooled > 0 {
		g.b.pool.Release(g.pooled)
	}
	if g.spooled > 0 {
		g.b.disk.Release(g.spooled)
	}
	if g.reserved {
		g.b.reserve.Release(1)
	}
	if g.all > 0 {
		g.b.inUse.Add(-g.all)
	}
	g.pooled, g.spooled, g.all, g.reserved = 0, 0, 0, false
}
