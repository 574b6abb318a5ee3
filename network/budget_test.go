package network

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestBodiesThatGrowTogetherAllComeToTheirEnd(t *testing.T) {
	t.Parallel()
	// Room for one and a half of them: without the reserve they would all stand still.
	b := newBudget(48, 32)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			g := grant{b: b}
			defer g.release()
			for range 8 {
				if err := g.grow(ctx, 4); err != nil {
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

func TestWhatBodiesHoldIsKnown(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	c.budget, c.repos = newBudget(30, 20), newBudget(30, 20)
	page, repo := grant{b: c.budget}, grant{b: c.repos}
	for _, g := range []*grant{&page, &repo} {
		for range 3 { // past the pool, and again of the reserve
			if err := g.grow(t.Context(), 6); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := c.Held(); got != 36 {
		t.Errorf("%d bytes are held, want 36", got)
	}
	page.release()
	page.release()
	if got := c.Held(); got != 18 {
		t.Errorf("%d bytes are held, want 18", got)
	}
	repo.release()
	if got := c.Held(); got != 0 {
		t.Errorf("%d bytes are held, want none", got)
	}
}

func TestWaitingForTheBudgetEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := newBudget(1, 1)
	first := grant{b: b}
	if err := first.grow(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	second := grant{b: b}
	if err := second.grow(ctx, 10); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	first.release()
	second.release()
	if err := second.grow(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
}

func TestLargeBodiesShareTheBudgetAndGiveItBack(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"records":[],"pad":"`+repeat("x", size)+`"}`)
	})
	c := newClient(t, Config{PerHost: 32})
	c.budget = newBudget(maxPageBody+2<<20, maxPageBody) // less than one body beside the reserve
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := page(t, c, host); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !c.budget.pool.TryAcquire(2<<20) || !c.budget.reserve.TryAcquire(1) {
		t.Fatal("something was not given back")
	}
}
