package stream

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// maxSubscribers is how many a source has at once.
const maxSubscribers = 256

// maxBacklog is how many events of one host wait at most.
const maxBacklog = 1 << 16

// Source is one stream that can be subscribed to.
type Source struct {
	name     string
	url      string
	now      func() time.Time
	lookBack time.Duration
	legacy   bool
	journal  *journal
	listener net.Listener // of a Jetstream
	handlers map[string]http.Handler

	subscribers sync.WaitGroup

	mu          sync.Mutex
	ended       bool
	subscribed  int
	hangUp      chan struct{} // closed: all subscribers go
	relayed     map[syntax.DID][]relayed
	held        map[string][]backlog // by host
	lastWitness int64
	sealed      int // position behind the last sealed segment
	errs        []error
	faults
}

// relayed says when an event was passed on.
type relayed struct {
	number int
	at     int64
}

// backlog is an event that waits to be relayed.
type backlog struct {
	number int
	event  sandbox.Event
	body   *frameBody
}

func newSource(name, url string, cfg Config, lookBack, skew time.Duration) *Source {
	return &Source{
		name: name, url: url, lookBack: lookBack, journal: newJournal(cfg.Items, cfg.Bytes),
		now:     func() time.Time { return cfg.Now().Add(skew) },
		hangUp:  make(chan struct{}),
		relayed: make(map[syntax.DID][]relayed), held: make(map[string][]backlog),
		faults: newFaults(),
	}
}

// URL is where the source is, for a subscriber: ws://host:port without a path.
func (s *Source) URL() string { return "ws" + s.url[len("http"):] }

// Err is what went wrong in the sandbox itself.
func (s *Source) Err() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.errs)
}

func (s *Source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

// witness is the time of the next item: never one that was given before.
func (s *Source) witness() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastWitness = max(s.now().UnixMicro(), s.lastWitness+1)
	return s.lastWitness
}

// note remembers that an event was passed on.
func (s *Source) note(did syntax.DID, number int, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.relayed[did]; len(of) == 0 || of[len(of)-1].number < number {
		s.relayed[did] = append(of, relayed{number, at})
	}
}

// relayedOf gives the newest event of an account that was passed on by a time, and the
// newest that was passed on at all; -1 if none was.
func (s *Source) relayedOf(did syntax.DID, by time.Time) (since, until int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, until = -1, -1
	for _, r := range s.relayed[did] {
		if until = r.number; r.at <= by.UnixMicro() {
			since = r.number
		}
	}
	return since, until
}

// Position is the number of the last item and the time at which it was witnessed.
func (s *Source) Position() (seq int64, at time.Time) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	for _, it := range slices.Backward(s.journal.items) {
		if !it.once {
			return it.seq, time.UnixMicro(it.at)
		}
	}
	return s.journal.next - 1, time.Time{}
}

// relayEvent passes an event on as a frame of subscribeRepos.
func (s *Source) relayEvent(number int, e sandbox.Event, body *frameBody) (seq int64, ok bool) {
	if s.drops(Dropped{Event: e}) {
		return 0, false
	}
	it := s.addFrame(e, body)
	s.note(e.DID, number, it.at)
	return it.seq, true
}

func (s *Source) addFrame(e sandbox.Event, body *frameBody) item {
	return s.journal.add(func(seq int64) item {
		frame, err := body.frame(seq)
		if err != nil {
			s.fail(err)
		}
		return item{at: s.witness(), kind: e.Kind, did: e.DID, wire: [2][]byte{frame}}
	})
}

// holds keeps an event back if its host is held.
func (s *Source) holds(number int, e sandbox.Event, body *frameBody) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting, ok := s.held[e.Host]
	if !ok {
		return false
	}
	if len(waiting) == maxBacklog {
		s.errs = append(s.errs, fmt.Errorf("hold events of %s: there are %d already", e.Host, maxBacklog))
		return true
	}
	s.held[e.Host] = append(waiting, backlog{number, e, body})
	s.fired["hold"]++
	return true
}

func (s *Source) hold(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[host] == nil {
		s.held[host] = []backlog{}
	}
}

func (s *Source) release(host string) []backlog {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.held[host]
	delete(s.held, host)
	return waiting
}

// enter counts a subscriber in, if there is room.
func (s *Source) enter() (hangUp <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.refuses || s.subscribed >= maxSubscribers {
		return nil, false
	}
	s.subscribed++
	s.subscribers.Add(1)
	return s.hangUp, true
}

func (s *Source) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribed--
	s.subscribers.Done()
}

// Subscribers is how many there are.
func (s *Source) Subscribers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribed
}

// Disconnect breaks all connections without a word.
func (s *Source) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.hangUp)
	s.hangUp = make(chan struct{})
}

// end breaks all connections, takes no new ones, and waits until they are gone.
func (s *Source) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.Disconnect()
	s.subscribers.Wait()
}
