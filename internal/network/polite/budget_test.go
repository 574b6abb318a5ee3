package polite

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestBodiesThatGrowTogetherAllComeToTheirEnd(t *testing.T) {
	t.Parallel()
	// Room for one and a half of them: without the reserve they would all stand still.
	b := NewBudget(48, 32)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			g := b.Grant()
			defer g.Release()
			for range 8 {
				if err := g.Grow(ctx, 4); err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	if !b.pool.TryAcquire(16) || !b.reserve.TryAcquire(1) || b.inUse.Load() != 0 {
		t.Fatal("something was not given back")
	}
}

func TestWaitingForTheBudgetEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := NewBudget(1, 1)
	first := b.Grant()
	if err := first.Grow(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	second := b.Grant()
	if err := second.Grow(ctx, 10); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	first.Release()
	second.Release()
	if err := second.Grow(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
}
