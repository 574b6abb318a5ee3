package network

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// bodyBudget is what all bodies together may hold, each past its first freeBody.
	bodyBudget = 40 << 20
	// carBudget is the same for repos. It is apart because a repo is held until
	// its records are stored, and no page should wait for that.
	carBudget = 56 << 20
	// spoolBudget bounds the files of all repos that are too large for memory.
	spoolBudget = 1 << 30
)

// budget bounds the bytes of all bodies together, past the first few of each, and
// those of their files.
//
// Bodies grow in steps and hold what they have while they ask for more, so a
// plain semaphore could end with everybody waiting for everybody. Here a body
// that finds the pool empty waits for the single reserve, which is as large as
// the largest body may become, in memory and on the disk: its holder can always
// finish, and when it has, the next one can.
type budget struct {
	pool    *semaphore.Weighted
	disk    *semaphore.Weighted
	reserve *semaphore.Weighted
	waiting atomic.Int32 // bodies that wait for the reserve
	inUse   atomic.Int64 // bytes of memory that bodies hold, of pool and reserve
}

// newBudget shares total bytes; the reserve for one body of the largest size is part
// of them. No body has a file.
func newBudget(total, largest int64) *budget { return newSpooledBudget(total, largest, 0, 0) }

// newSpooledBudget is newBudget with as much for files.
func newSpooledBudget(total, largest, disk, largestFile int64) *budget {
	return &budget{
		pool: semaphore.NewWeighted(max(total-largest, 0)), disk: semaphore.NewWeighted(max(disk-largestFile, 0)),
		reserve: semaphore.NewWeighted(1),
	}
}

// grant is what one body holds of the budget. Its zero value but for b holds nothing.
type grant struct {
	b        *budget
	held     int64 // of the pool
	spooled  int64 // of the disk
	all      int64 // of pool and reserve
	reserved bool
}

// grow asks for n more bytes of memory, and waits for them under ctx.
func (g *grant) grow(ctx context.Context, n int64) error {
	got, err := g.acquire(ctx, g.b.pool, n)
	if err != nil {
		return err
	}
	g.held += got
	g.all += n
	g.b.inUse.Add(n)
	return nil
}

// spool is grow for n more bytes of a file.
func (g *grant) spool(ctx context.Context, n int64) error {
	got, err := g.acquire(ctx, g.b.disk, n)
	g.spooled += got
	return err
}

// acquire takes n of the pool, or else the reserve. It returns how many it took of
// the pool.
func (g *grant) acquire(ctx context.Context, pool *semaphore.Weighted, n int64) (int64, error) {
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

// wanted tells whether others wait for what is held.
func (g *grant) wanted() bool {
	return g.reserved || g.held+g.spooled > 0 && g.b.waiting.Load() > 0
}

// release gives everything back.
func (g *grant) release() {
	if g.held > 0 {
		g.b.pool.Release(g.held)
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
	g.held, g.spooled, g.all, g.reserved = 0, 0, 0, false
}
