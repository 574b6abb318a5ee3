package service

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryLimitFollowsWhatIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var held, limit, sets atomic.Int64
		over := make(chan struct{})
		go func() {
			defer close(over)
			limitMemory(ctx, held.Load, func(to int64) int64 {
				sets.Add(1)
				return limit.Swap(to)
			})
		}()
		tick := time.NewTicker(heldEvery)
		defer tick.Stop()
		for _, step := range []struct{ held, limit, sets int64 }{
			{0, 112 << 20, 1},
			{1, 128 << 20, 2},
			{16 << 20, 128 << 20, 2}, // the same step
			{300 << 20, 416 << 20, 3},
			{0, 112 << 20, 4},
		} {
			held.Store(step.held)
			<-tick.C
			synctest.Wait()
			if limit.Load() != step.limit || sets.Load() != step.sets {
				t.Errorf("with %d bytes held: limit %d, set %d times, want %d, %d times",
					step.held, limit.Load(), sets.Load(), step.limit, step.sets)
			}
		}
		cancel()
		<-over
	})
}
