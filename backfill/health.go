package backfill

import (
	"sync"
	"time"
)

// health is when hosts last showed a sign of health, to whichever job. It is in memory
// only.
//
// A sign is a repo that was settled as done, or as unavailable on the host's own word,
// or a reading that got on: a page or a step that it did not have before, a record that
// was not listed and is confirmed to be there or not, or some seconds of a body at no
// less than transport.WithProgress wants. An answer to anything
// else is none: a host may tell how each repo is and give none of them.
type health struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newHealth() *health { return &health{last: map[string]time.Time{}} }

// note notes a sign of health.
func (h *health) note(host string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[host] = now
}

// latest is the time of the latest sign of any of the hosts; zero if there was none.
func (h *health) latest(hosts []string) (t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, host := range hosts {
		if at := h.last[host]; at.After(t) {
			t = at
		}
	}
	return t
}

// prune forgets the signs before a time.
func (h *health) prune(before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for host, at := range h.last {
		if at.Before(before) {
			delete(h.last, host)
		}
	}
}
