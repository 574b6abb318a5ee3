package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"
)

// World is a relay, a PLC directory and PDS hosts over one set of accounts.
type World struct {
	cfg        Config
	relay      *part
	plc        *part
	hosts      []*host
	directory  *directory
	relayMode  atomic.Int32
	watch      *watch
	behaviours *behaviours
	observer   atomic.Pointer[observer] // nil: nobody
	ran        atomic.Bool

	mu     sync.RWMutex // guards what follows; taken before an account's lock
	byDID  map[syntax.DID]*account
	byName map[string]*account
	order  []*account // in order of creation; only grows
}

// New makes the world of the configuration and opens its listeners. Requests are
// answered once Run runs; without Run, Close gives the listeners back.
func New(cfg Config) (*World, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure the sandbox: %w", err)
	}
	w := &World{
		cfg:        cfg,
		directory:  newDirectory(),
		watch:      newWatch(cfg.LogSize),
		behaviours: newBehaviours(),
		byDID:      make(map[syntax.DID]*account, cfg.Repos),
		byName:     make(map[string]*account, cfg.Repos),
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	for i := range cfg.Repos {
		if err := w.populate(i); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// open makes the parts with their listeners.
func (w *World) open() error {
	var err error
	if w.relay, err = w.newPart(PartRelay, relayAddress, w.relayEndpoints()); err != nil {
		return err
	}
	w.relay.gate = w.relayGate
	if w.plc, err = w.newPart(PartPLC, plcAddress, w.plcEndpoints()); err != nil {
		return err
	}
	for i := range w.cfg.Hosts {
		h := &host{}
		if h.part, err = w.newPart(PartPDS, firstHostAddress+i, h.endpoints()); err != nil {
			return err
		}
		h.limit = newRateLimit(w.cfg.RateLimit)
		w.hosts = append(w.hosts, h)
	}
	return nil
}

// Run serves until ctx ends, and returns when every goroutine of the world has
// ended. A world runs once.
func (w *World) Run(ctx context.Context) error {
	if !w.ran.CompareAndSwap(false, true) {
		return errors.New("run the sandbox: it ran already")
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range w.parts() {
		g.Go(func() error { return p.run(gctx) })
	}
	return g.Wait()
}

// Close gives the listeners of a world that will not run back to the system.
// Run does it by itself.
func (w *World) Close() error {
	var errs []error
	for _, p := range w.parts() {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// parts are those that were opened.
func (w *World) parts() []*part {
	var parts []*part
	if w.relay != nil {
		parts = append(parts, w.relay)
	}
	if w.plc != nil {
		parts = append(parts, w.plc)
	}
	for _, h := range w.hosts {
		parts = append(parts, h.part)
	}
	return parts
}

// RelayURL is where the relay listens.
func (w *World) RelayURL() string { return w.relay.url }

// PLCURL is where the PLC directory listens.
func (w *World) PLCURL() string { return w.plc.url }

// HostURLs are where the PDS hosts listen.
func (w *World) HostURLs() []string {
	urls := make([]string, len(w.hosts))
	for i, h := range w.hosts {
		urls[i] = h.url
	}
	return urls
}

func (w *World) host(url string) (*host, error) {
	for _, h := range w.hosts {
		if h.url == url {
			return h, nil
		}
	}
	return nil, fmt.Errorf("find host %q: no such host", url)
}

func (w *World) account(did syntax.DID) (*account, error) {
	w.mu.RLock()
	a := w.byDID[did]
	w.mu.RUnlock()
	if a == nil {
		return nil, fmt.Errorf("find %q: %w", did, ErrUnknownAccount)
	}
	return a, nil
}

// find is the account with a DID or a handle, or nil.
func (w *World) find(name string) *account {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if a := w.byDID[syntax.DID(name)]; a != nil {
		return a
	}
	return w.byName[name]
}

// accounts are all that ever were, in order of creation.
func (w *World) accounts() []*account {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.Clip(w.order)
}

func (w *World) randomAccount(rng *rand.Rand) *account {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.order[rng.IntN(len(w.order))]
}

// admit makes an account known to all. The caller holds mu, or is New.
func (w *World) admit(a *account) syntax.DID {
	w.byDID[a.did] = a
	w.byName[a.handle] = a
	w.order = append(w.order, a)
	a.host.admit(a)
	return a.did
}

// populate makes the number-th account with its records. All that is random in
// it comes from the seed and its number.
func (w *World) populate(number int) error {
	sum := derive(w.cfg.Seed, "repo", number)
	rng := rand.New(rand.NewChaCha8(sum))
	a := newAccount(w.cfg.Seed, number, w.hosts[w.homeOf(number, rng)], WorldStart+rng.Int64N(worldSpan/2))
	g := generator{rng: rng, odd: w.cfg.Odd}

	var plan []Collection // one entry a record
	for i, c := range w.cfg.Collections {
		n := 0
		if rng.Float64() < c.Share {
			n = c.MinRecords + rng.IntN(c.MaxRecords-c.MinRecords+1)
		}
		if i == 0 && number < w.cfg.LargeRepos {
			n = largeRepoRecords + rng.IntN(largeRepoRecords/2)
		}
		plan = append(plan, slices.Repeat([]Collection{c}, n)...)
	}
	rng.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	start := a.clock.micros
	for i, c := range plan {
		a.clock.skipTo(start + (WorldStart+worldSpan-start)/int64(len(plan))*int64(i))
		rkey := g.rkey(c, &a.clock)
		value, odd := g.value(c, a.clock.datetime())
		a.rev = a.clock.next()
		r, err := newRecord(a.did, c.NSID, rkey, a.rev, value, odd)
		if err != nil {
			return err
		}
		a.put(c.NSID, rkey, r)
		w.directory.note(a.did, c.NSID)
	}
	a.clock.skipTo(WorldStart + worldSpan)
	w.admit(a)
	return nil
}

// largeRepoRecords is how many records a large repo has at least.
const largeRepoRecords = 1001

// homeOf chooses a host. Every host gets an account if there are enough.
func (w *World) homeOf(number int, rng *rand.Rand) int {
	if !w.cfg.Skew || number < len(w.hosts) {
		return number % len(w.hosts)
	}
	u := rng.Float64()
	return int(u * u * u * float64(len(w.hosts)))
}
