package stream

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"appview/internal/sandbox"
)

// faults are the switches of a source. They are guarded by its mu.
type faults struct {
	fired     map[string]int64
	refuses   bool
	drop      func(Dropped) bool
	stalled   chan struct{} // closed when it goes on; nil: it does not stand still
	slow      time.Duration
	cut       int
	duplicate int
	clamps    bool
}

func newFaults() faults { return faults{fired: make(map[string]int64)} }

// Faults is how often a fault of a name was carried out: drop, stall, slow, cut,
// duplicate, clamp, refuse, replay, raw, forge, hold, lose, renumber.
func (s *Source) Faults(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fired[name]
}

// fire counts a fault.
func (s *Source) fire(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fired[name]++
}

// Dropped is what a source may leave out: an event, or on a Jetstream one operation of it.
type Dropped struct {
	Event sandbox.Event
	Op    sandbox.EventOp // of a Jetstream's commit
}

// Drop leaves out what the hook wants to be left out; nil ends it.
func (s *Source) Drop(hook func(Dropped) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = hook
}

func (s *Source) drops(d Dropped) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drop == nil || !s.drop(d) {
		return false
	}
	s.fired["drop"]++
	return true
}

// Stall sends no items any more, and answers pings, until Resume.
func (s *Source) Stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stalled == nil {
		s.stalled = make(chan struct{})
	}
}

// Resume ends Stall.
func (s *Source) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stalled != nil {
		close(s.stalled)
		s.stalled = nil
	}
}

// Slow waits so long before each item; 0 ends it.
func (s *Source) Slow(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = wait
}

// Cut breaks the connection in the middle of each of the next n frames.
func (s *Source) Cut(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = n
}

// Duplicate sends each of the next n items twice.
func (s *Source) Duplicate(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.duplicate = n
}

// Clamp makes a source that would refuse a cursor that is too old, or say that it is, do
// neither.
func (s *Source) Clamp(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clamps = on
}

// Refuse answers 503 to whoever connects.
func (s *Source) Refuse(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = on
}

// sending is what is to be done about the next frame.
type sending struct {
	stalled <-chan struct{}
	slow    time.Duration
	cut     bool
	times   int
}

func (s *Source) sending() sending {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stalled != nil {
		s.fired["stall"]++
		return sending{stalled: s.stalled}
	}
	out := sending{slow: s.slow, times: 1}
	if s.slow > 0 {
		s.fired["slow"]++
	}
	if s.cut > 0 {
		s.cut--
		s.fired["cut"]++
		out.cut = true
	}
	if s.duplicate > 0 {
		s.duplicate--
		s.fired["duplicate"]++
		out.times = 2
	}
	return out
}

// Raw sends bytes of any kind to who is connected, as one frame.
func (s *Source) Raw(b []byte) {
	s.fire("raw")
	s.journal.add(func(int64) item { return item{once: true, wire: [2][]byte{b, b}} })
}

// Replay sends what was witnessed in the last so long once more to who is connected, with
// the seqs that it had.
func (s *Source) Replay(last time.Duration) {
	s.fire("replay")
	from := s.now().Add(-last).UnixMicro()
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	for _, it := range slices.Clip(s.journal.items) {
		if !it.once && it.at >= from {
			it.once = true
			s.journal.append(it)
		}
	}
}

// Lose forgets the last n items and gives their seqs again, as a server does that has lost
// its tail in a crash. Everybody is disconnected.
func (s *Source) Lose(n int) {
	s.fire("lose")
	s.journal.rewrite(func(items []item, next int64) ([]item, int64) {
		for ; n > 0 && len(items) > 0; n-- {
			if last := items[len(items)-1]; !last.once {
				next = last.seq
			}
			items = items[:len(items)-1]
		}
		return items, next
	})
	s.Disconnect()
}

// Renumber forgets everything and goes on with another numbering, from next on.
// Everybody is disconnected.
func (s *Source) Renumber(next int64) {
	s.fire("renumber")
	s.journal.rewrite(func([]item, int64) ([]item, int64) { return nil, next })
	s.Disconnect()
}

// LookBack changes how far back a cursor may reach.
func (s *Source) LookBack(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookBack = d
}

// oldest is the time from which on items are given.
func (s *Source) oldest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now().Add(-s.lookBack)
}

// Forge passes an event on that never happened. The history does not know of it. Of a
// commit that nobody signed the blocks are a commit of Head.
func (s *Source) Forge(e sandbox.Event) error {
	if s.handlers == nil && e.Head == nil && e.Kind != sandbox.EventAccount && e.Kind != sandbox.EventIdentity {
		return errors.New("forge a commit: it has no head")
	}
	s.fire("forge")
	if s.handlers != nil {
		s.addOps(e, s.now(), 0)
		return nil
	}
	body, err := encodeEvent(e, s.now())
	if err != nil {
		return fmt.Errorf("forge an event: %w", err)
	}
	s.addFrame(e, body)
	return nil
}
