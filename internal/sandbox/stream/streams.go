package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"appview/internal/sandbox"
)

// Bounds of what is remembered. Zero in a Config means these.
const (
	defaultItems    = 1 << 16   // of a source
	defaultBytes    = 128 << 20 // of a source
	defaultHistory  = 1 << 18   // events of the world
	relayLookBack   = 72 * time.Hour
	pdsLookBack     = 24 * time.Hour
	jetLookBack     = 36 * time.Hour
	jetLegacyLookBk = 24 * time.Hour
)

// Config says what streams there are. The zero value is those of the hosts and of the
// relay.
type Config struct {
	Now        func() time.Time // default: time.Now
	Jetstreams []Jetstream
	Items      int // that a source remembers
	Bytes      int // that a source remembers
	History    int // events of the world that are remembered
}

// Jetstream is one instance over the relay.
type Jetstream struct {
	Skew     time.Duration // of its clock
	FirstSeq int64         // of its numbering; default 1
	LookBack time.Duration // default 36 h, of a legacy one 24 h
	Legacy   bool          // v1 alone, without seqs and without #sync
}

// Streams are the streams of a world.
type Streams struct {
	world   *sandbox.World
	now     func() time.Time
	history *history
	relay   *Source
	hosts   map[string]*Source
	jets    []*Source
}

// New adds streams to a world that does not run yet. Until Run runs, Jetstreams answer
// nobody; without Run, Close gives their listeners back.
func New(w *sandbox.World, cfg Config) (*Streams, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Items == 0 {
		cfg.Items = defaultItems
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = defaultBytes
	}
	if cfg.History == 0 {
		cfg.History = defaultHistory
	}
	s := &Streams{world: w, now: cfg.Now, history: newHistory(cfg.History), hosts: make(map[string]*Source)}
	s.relay = newSource("relay", w.RelayURL(), cfg, relayLookBack, 0)
	if err := w.Handle(w.RelayURL(), methodSubscribeRepos, s.relay.repos()); err != nil {
		return nil, err
	}
	for _, url := range w.HostURLs() {
		h := newSource("pds", url, cfg, pdsLookBack, 0)
		if err := w.Handle(url, methodSubscribeRepos, h.repos()); err != nil {
			return nil, err
		}
		s.hosts[url] = h
	}
	for i, j := range cfg.Jetstreams {
		if err := s.addJetstream(fmt.Sprintf("jetstream %d", i), j, cfg); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	w.Observe(cfg.Now, s.take)
	return s, nil
}

// Run serves the Jetstreams until ctx ends, and returns when no subscriber is left. The
// world's own Run serves the others.
func (s *Streams) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, j := range s.jets {
		g.Go(func() error { return j.run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return nil
	})
	err := g.Wait()
	for _, source := range s.Sources() {
		source.end()
	}
	return err
}

// Close gives the listeners of streams that will not run back.
func (s *Streams) Close() error {
	var errs []error
	for _, j := range s.jets {
		errs = append(errs, j.listener.Close())
	}
	return errors.Join(errs...)
}

// Relay is the relay's stream.
func (s *Streams) Relay() *Source { return s.relay }

// Host is the stream of the host with the URL; nil if there is none.
func (s *Streams) Host(url string) *Source { return s.hosts[url] }

// Jetstream is one of the Jetstreams, in the order of the Config.
func (s *Streams) Jetstream(i int) *Source { return s.jets[i] }

// Sources are all of them.
func (s *Streams) Sources() []*Source {
	all := append([]*Source{s.relay}, s.jets...)
	for _, url := range s.world.HostURLs() {
		all = append(all, s.hosts[url])
	}
	return all
}

// take is told of every change. The account is locked meanwhile, so that what is said of
// one account keeps its order through all sources.
func (s *Streams) take(e sandbox.Event) {
	number := s.history.add(e)
	body, err := encodeEvent(e, s.now())
	if err != nil {
		s.relay.fail(err)
		return
	}
	s.hosts[e.Host].relayEvent(number, e, body)
	if e.Kind != sandbox.EventAccount || s.history.isCurrent(e) {
		s.relayed(number, e, body)
	}
}

// relayed is what the relay does with an event of a host.
func (s *Streams) relayed(number int, e sandbox.Event, body *frameBody) {
	if s.relay.holds(number, e, body) {
		return // until Release
	}
	seq, ok := s.relay.relayEvent(number, e, body)
	if !ok {
		return
	}
	for _, j := range s.jets {
		j.relayOps(number, e, seq)
	}
}

// Hold makes the relay keep back what the host with the URL announces, as when it has
// lost its connection to it.
func (s *Streams) Hold(hostURL string) { s.relay.hold(hostURL) }

// Release has the relay take in the backlog of a host, in its order.
func (s *Streams) Release(hostURL string) {
	for _, b := range s.relay.release(hostURL) {
		s.relayed(b.number, b.event, b.body)
	}
}
