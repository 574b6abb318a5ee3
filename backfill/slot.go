package backfill

import (
	"sync"
	"sync/atomic"
	"time"
)

// slot is the right of a sweep to read from its host, one of so many hosts. Jobs that
// name their DIDs need none.
//
// A sweep gives it to others when its turn is over, though some of its repos are still
// being read, and much earlier when none has been read yet: a host can take its time over
// each, and a few such hosts would keep all others waiting. The sweep then goes on in
// the overflow pool. While a sweep does nothing but wait for commits, it lends the slot.
type slot struct {
	w     *worker
	host  string
	reads atomic.Int64 // repos that were read

	mu    sync.Mutex
	state slotState
	ticks int
	timer *time.Timer
}

type slotState uint8

const (
	slotHeld     slotState = iota
	slotLent               // nothing is read
	slotOverflow           // in place of it, one of the overflow pool
	slotEnded
)

// newSlot is the slot of a sweep that the queues have begun and the hosts have room for.
func (w *worker) newSlot(host string) *slot {
	s := &slot{w: w, host: host}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(s.early(), s.tick)
	return s
}

// early is when the slot is yielded of a sweep that has read nothing.
func (s *slot) early() time.Duration { return s.w.b.cfg.Turn / 4 }

// tick yields the slot if it is time to.
func (s *slot) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks++
	switch {
	case s.state == slotEnded, s.state == slotOverflow:
	case s.ticks == 1 && s.reads.Load() > 0:
		s.timer.Reset(s.w.b.cfg.Turn - s.early())
	case s.state == slotHeld && s.w.b.overflow.TryAcquire(1):
		s.state = slotOverflow
		s.giveAway()
	default: // there are too many such hosts already
		s.timer.Reset(s.early())
	}
}

// lend gives the slot to others until take.
func (s *slot) lend() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == slotHeld {
		s.state = slotLent
		s.giveAway()
	}
}

// take is called before the queue of the host is walked. It takes the slot back if it
// was lent, and reports whether the sweep may read.
func (s *slot) take() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.w.b
	if s.state == slotLent {
		if !s.w.named && !b.hosts.TryAcquire(1) {
			return false
		}
		if !s.w.queues.retakeSlot(s.host, b.cfg.MaxHosts) {
			s.release()
			return false
		}
		s.state = slotHeld
	}
	s.w.queues.walk(s.host)
	return true
}

// end ends the slot with its sweep.
func (s *slot) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	switch s.state {
	case slotHeld:
		s.release()
	case slotOverflow:
		s.w.b.overflow.Release(1)
	case slotLent, slotEnded:
	}
	s.state = slotEnded
}

// giveAway lets others have the slot.
func (s *slot) giveAway() {
	s.w.queues.yieldSlot(s.host)
	s.release()
}

func (s *slot) release() {
	if !s.w.named {
		s.w.b.hosts.Release(1)
	}
}
