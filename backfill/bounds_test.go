package backfill

import (
	"fmt"
	"testing"
	"time"

	"appview/store/jobs"
)

func TestCircleOfCursorsIsFound(t *testing.T) {
	t.Parallel()
	for _, length := range []int{1, 2, 3, 7, 50} {
		c, found := circle{}, false
		for i := 0; i < 10*length+10 && !found; i++ {
			found = c.closed(fmt.Sprint(i % length))
		}
		if !found {
			t.Errorf("a circle of %d cursors is not found", length)
		}
	}
	c := circle{}
	for i := range 10_000 {
		if c.closed(fmt.Sprint(i)) {
			t.Fatalf("cursor %d counts as seen", i)
		}
	}
}

func TestNothingWaitsForAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for wait, want := range map[time.Duration]bool{-time.Hour: true, time.Second: false, maxBackoff: false, 24 * time.Hour: true} {
		if got := due(jobs.Owed{NotBefore: now.Add(wait)}, now); got != want {
			t.Errorf("due in %s: %t, want %t", wait, got, want)
		}
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	t.Parallel()
	for attempts := 1; attempts < 100; attempts++ {
		base := min(time.Second<<min(attempts-1, 20), maxBackoff)
		if d := backoff(time.Second, attempts); d < base*3/4 || d > base*5/4 {
			t.Errorf("after %d attempts: %s, want about %s", attempts, d, base)
		}
	}
}

func TestQueuesComeBackWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	now := time.Now()
	q := &queues{changed: make(chan struct{}, 1)}
	for _, host := range []string{"a", "b", "c"} {
		q.ready(host)
	}
	for _, want := range []string{"a", "b", "c"} {
		if host, _, _ := q.take(now, 10); host != want {
			t.Fatalf("took %q, want %q", host, want)
		}
	}
	q.end("a", scanResult{next: now.Add(2 * time.Minute), parked: true})
	q.end("b", scanResult{next: now.Add(time.Minute)})
	q.end("c", scanResult{})
	if host, next, idle := q.take(now, 10); host != "" || idle || !next.Equal(now.Add(time.Minute)) {
		t.Errorf("took %q, next %s, idle %t", host, next, idle)
	}
	q.ready("a") // is parked, and stays so
	q.ready("b") // waits for one repo: another is there now
	if host, _, _ := q.take(now, 10); host != "b" {
		t.Errorf("took %q, want b", host)
	}
	q.end("b", scanResult{})
	if host, _, _ := q.take(now.Add(3*time.Minute), 10); host != "a" {
		t.Errorf("took %q, want a", host)
	}
	q.end("a", scanResult{})
	if _, _, idle := q.take(now, 10); !idle || len(q.hosts) != 0 {
		t.Errorf("idle %t with %d hosts", idle, len(q.hosts))
	}
}
