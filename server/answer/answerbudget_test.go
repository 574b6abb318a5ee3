package answer

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// newShare is an answer that notes in cut when it is cut.
func newShare(b *answerBudget, name string, public bool, cut *[]string) *answerShare {
	return &answerShare{budget: b, public: public, abort: func() { *cut = append(*cut, name) }}
}

func TestWhoTakesHisAnswerSlowestGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		// Answers are cut by a timer too, under the lock.
		cutNow := func() []string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.Clone(cut)
		}
		shares := map[string]*answerShare{}
		begin := func(name string, public bool, bytes int64) {
			s := newShare(b, name, public, &cut)
			if err := b.acquire(t.Context(), s, bytes); err != nil {
				t.Fatal(err)
			}
			b.printed(s)
			shares[name] = s
		}
		// pass has each client take a piece of so many bytes in a second, again and again.
		pass := func(seconds int) {
			for range seconds {
				for _, s := range shares {
					s.beginPiece()
				}
				time.Sleep(time.Second) //nolint:forbidigo // of synctest's clock
				for name, s := range shares {
					s.endPiece(map[string]int{"drip": 72_000, "slow": 100_000, "quick": 10 << 20}[name])
				}
			}
		}
		wait := func(name string, bytes int64) chan error {
			s, got := newShare(b, name, true, &cut), make(chan error, 1)
			go func() { got <- b.acquire(t.Context(), s, bytes) }()
			synctest.Wait()
			return got
		}
		begin("admin", false, 10) // takes nothing
		begin("slow", true, 20)
		begin("quick", true, 20)
		pass(60)
		begin("drip", true, 20)
		begin("nothing", true, 20)
		for _, name := range []string{"drip", "nothing"} {
			shares[name].beginPiece()
			shares[name].endPiece(8 << 20) // the system's buffer has taken it
		}
		pass(10)
		begin("new", true, 10)
		if len(cutNow()) > 0 {
			t.Fatalf("%v were cut while nobody waited", cutNow())
		}
		for _, s := range shares {
			s.beginPiece()
		}
		got := wait("first", 15)
		if !slices.Equal(cutNow(), []string{"nothing"}) {
			t.Fatalf("cut: %v", cutNow())
		}
		b.release(shares["nothing"])
		if err := <-got; err != nil || b.held != 95 || b.freeing != 0 {
			t.Errorf("%v, %d bytes held, %d freed", err, b.held, b.freeing)
		}
		got = wait("second", 40) // which takes more than one
		if !slices.Equal(cutNow(), []string{"nothing", "drip", "slow"}) {
			t.Fatalf("cut: %v", cutNow())
		}
		for _, name := range []string{"drip", "slow"} {
			b.release(shares[name])
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		got = wait("third", 10)
		if len(cutNow()) != 3 {
			t.Errorf("%v were cut though the slowest that is left is new", cutNow())
		}
		time.Sleep(2 * b.grace) //nolint:forbidigo // of synctest's clock
		synctest.Wait()
		if !slices.Equal(cutNow(), []string{"nothing", "drip", "slow", "new"}) {
			t.Fatalf("cut: %v", cutNow())
		}
		b.release(shares["new"])
		if err := <-got; err != nil {
			t.Error(err)
		}
		// Who takes as much as can be is waited for.
		for _, s := range shares {
			s.endPiece(10 << 20)
		}
		got = wait("fourth", 60)
		if err := <-got; !errors.Is(err, errAnswersFull) || len(cutNow()) != 4 {
			t.Errorf("%v, cut: %v", err, cutNow())
		}
	})
}

// TestCutAnswerWaitsNoMore has answers that go on wait for a place, and hold all there is.
func TestCutAnswerWaitsNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		goes := newShare(b, "goes", true, &cut)
		if err := b.acquire(t.Context(), goes, 80); err != nil {
			t.Fatal(err)
		}
		b.printed(goes)
		goes.beginPiece()
		time.Sleep(b.grace) //nolint:forbidigo // of synctest's clock
		goes.endPiece(1)
		admin := newShare(b, "admin", false, &cut)
		b.charge(admin, 30)
		err := b.acquire(t.Context(), goes, 0)
		if !errors.Is(err, errAnswersFull) || !slices.Equal(cut, []string{"goes"}) || len(b.going) > 0 {
			t.Errorf("%v, cut: %v", err, cut)
		}
		b.release(goes)
		b.release(admin)
	})
}

// TestAdministratorsNeverWaitForTheBudget charges more than there is without waiting:
// the public makes up for it, and administrators only once they exceed it by themselves.
func TestAdministratorsNeverWaitForTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		public, one, two := newShare(b, "public", true, &cut), newShare(b, "one", false, &cut), newShare(b, "two", false, &cut)
		one.beginPiece()
		if err := b.acquire(t.Context(), public, 60); err != nil {
			t.Fatal(err)
		}
		b.printed(public)
		public.beginPiece()
		b.charge(one, 80)
		b.charge(two, 20)
		for _, want := range [][]string{{"public"}, {"public", "one"}} {
			time.Sleep(2 * b.grace) //nolint:forbidigo // of synctest's clock
			synctest.Wait()
			if !slices.Equal(cut, want) {
				t.Errorf("cut: %v, want %v", cut, want)
			}
			b.charge(two, 30)
		}
		for _, s := range []*answerShare{public, one, two} {
			b.release(s)
		}
		time.Sleep(b.grace) //nolint:forbidigo // of synctest's clock
	})
}

func TestRequestsWaitForTheBudgetInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		var first []*answerShare
		for range b.printers {
			s := newShare(b, "first", true, &cut)
			if err := b.acquire(t.Context(), s, 1); err != nil {
				t.Fatal(err)
			}
			first = append(first, s)
		}
		gone, end := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- b.acquire(gone, newShare(b, "gone", true, &cut), 1) }()
		synctest.Wait()
		next, ready := newShare(b, "next", true, &cut), make(chan error, 1)
		go func() { ready <- b.acquire(t.Context(), next, 1) }()
		synctest.Wait()
		end()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who went got %v", err)
		}
		b.printed(first[0])
		if err := <-ready; err != nil {
			t.Error(err)
		}
		// Answers that go on come before new ones.
		newer, goes := make(chan error, 1), make(chan error, 1)
		go func() { newer <- b.acquire(t.Context(), newShare(b, "newer", true, &cut), 1) }()
		synctest.Wait()
		go func() { goes <- b.acquire(t.Context(), first[0], 0) }()
		synctest.Wait()
		b.release(first[1])
		if err := <-goes; err != nil {
			t.Error(err)
		}
		select {
		case err := <-newer:
			t.Errorf("the new one came first: %v", err)
		default:
		}
		if err := <-newer; !errors.Is(err, errAnswersFull) {
			t.Errorf("who waited for too long got %v", err)
		}
		if len(cut) > 0 {
			t.Errorf("%v were cut though there are bytes", cut)
		}
	})
}
