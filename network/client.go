package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"appview/network/repo"
)

// Defaults of Config and Timing.
const (
	DefaultRelay    = "https://relay1.us-east.bsky.network"
	DefaultPLC      = "https://plc.directory"
	DefaultHostRPS  = 8
	DefaultPerHost  = 8
	DefaultRelayRPS = 10
	DefaultPLCRPS   = 100
	// DefaultPerAddress bounds what one machine sees of us, whatever its names.
	DefaultPerAddress = 32
	// DefaultUserAgent is only honest about what it is; one with a contact is better.
	DefaultUserAgent = "appview/0 (atproto index; its operator has set no contact)"

	defaultConnect     = 10 * time.Second
	defaultTLS         = 10 * time.Second
	defaultHeader      = 30 * time.Second
	defaultBodyIdle    = 30 * time.Second
	defaultPause       = 30 * time.Second
	defaultProbe       = 10 * time.Second
	defaultMaxProbe    = time.Minute
	defaultOutageProbe = 15 * time.Second

	// directoryInFlight is the in-flight cap of the relay and the PLC directory.
	directoryInFlight = 128
)

// Config says where to ask and how politely. A zero field means its default.
type Config struct {
	Relay        string           // origin of the relay; DefaultRelay
	PLC          string           // origin of the PLC directory; DefaultPLC
	AllowPrivate bool             // private and loopback addresses, any port, plain http
	HostRPS      float64          // requests a second to one PDS host; DefaultHostRPS
	PerHost      int              // requests in flight to one PDS host; DefaultPerHost
	PerAddress   int              // connections to one remote address, over all names; DefaultPerAddress
	RelayRPS     float64          // requests a second to the relay; DefaultRelayRPS
	PLCRPS       float64          // requests a second to the PLC directory; DefaultPLCRPS
	UserAgent    string           // DefaultUserAgent; an operator should name themselves
	Timing       Timing           // timeouts and pauses
	Observe      func(Exchange)   // told of every request that was sent; must not wait for anything
	Resolver     *net.Resolver    // of host names; the system's
	Spool        repo.Spool       // where repos go that are too large for memory; the system's directory for such
	Log          *slog.Logger     // nowhere
	Now          func() time.Time // time.Now
}

// Timing holds the waits, so that tests can shorten them. Zero means the default.
type Timing struct {
	Connect     time.Duration // name resolution and connection; 10 s
	TLS         time.Duration // handshake; 10 s
	Header      time.Duration // until the answer's header is complete; 30 s
	BodyIdle    time.Duration // without a byte of the body; 30 s
	Pause       time.Duration // after a 429 that names no time: between this and twice this; 30 s
	Probe       time.Duration // before the first probe of a dead host; doubles with each; 10 s
	MaxProbe    time.Duration // longest wait between two probes; 60 s
	OutageProbe time.Duration // between two looks for our own network; 15 s
}

// Client asks hosts. It is safe for concurrent use, and meant to be shared by
// everything in the process: politeness counts per host, not per caller.
type Client struct {
	cfg        Config
	relay, plc Host
	guard      *guard
	transport  *http.Transport
	gates      gates
	budget     *budget // of bodies in one piece
	repos      *budget // of repos
	inflaters  inflaters
	outage     *outage
	jumps      *jumps
	pauses     *pauses
}

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Client, error) {
	errs := []error{
		positive("HostRPS", cfg.HostRPS), positive("RelayRPS", cfg.RelayRPS), positive("PLCRPS", cfg.PLCRPS),
	}
	if cfg.PerHost < 0 {
		errs = append(errs, fmt.Errorf("PerHost %d is negative", cfg.PerHost))
	}
	if cfg.PerAddress < 0 {
		errs = append(errs, fmt.Errorf("PerAddress %d is negative", cfg.PerAddress))
	}
	cfg = cfg.withDefaults()
	c := &Client{cfg: cfg, guard: newGuard(cfg), jumps: newJumps(), pauses: newPauses(), budget: newBudget(bodyBudget, maxPageBody), repos: newSpooledBudget(carBudget, repo.MaxMemory, spoolBudget, repo.MaxCAR)}
	c.transport = c.guard.transport(cfg)
	c.gates = gates{make: c.newGate, all: make(map[Host]*gate), swept: cfg.Now()}
	var err error
	if c.relay, err = c.ParseHost(cfg.Relay); err != nil {
		errs = append(errs, fmt.Errorf("relay: %w", err))
	}
	if c.plc, err = c.ParseHost(cfg.PLC); err != nil {
		errs = append(errs, fmt.Errorf("plc: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		c.guard.close()
		return nil, err
	}
	c.outage = &outage{
		every: cfg.Timing.OutageProbe, reach: c.reach, fixed: []Host{c.relay, c.plc}, changed: c.networkChanged,
	}
	return c, nil
}

// Relay is the relay's host, for HostState and for messages.
func (c *Client) Relay() Host { return c.relay }

// PLC is the PLC directory's host.
func (c *Client) PLC() Host { return c.plc }

// PLCRPS is how many requests a second the PLC directory is asked at most.
func (c *Client) PLCRPS() float64 { return c.cfg.PLCRPS }

// DirectoryParked reports whether the PLC directory is to be left alone: it does not
// answer, or has asked for a pause.
func (c *Client) DirectoryParked() bool {
	_, parked := c.parkedUntil(c.plc, laneOrdinary, wayService)
	return parked
}

// SetAside has the relay or the directory be left alone for a while, in which its answers
// have failed for its caller, until it answers a question. It returns until when.
func (c *Client) SetAside(host Host, d time.Duration, why string) time.Time {
	now := c.cfg.Now()
	g := c.gates.take(host, now)
	defer func() { c.gates.give(g, c.cfg.Now()) }()
	g.mu.Lock()
	defer g.mu.Unlock()
	b := &g.breakers[wayService]
	if !b.down {
		b.down, b.wait, b.next = true, b.first, now.Add(b.first)
	}
	b.last = errors.New(why)
	if next := now.Add(d); next.After(b.next) {
		b.next = next
	}
	g.moved()
	g.note()
	return b.next
}

func positive(name string, v float64) error {
	if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%s %v is no rate", name, v)
	}
	return nil
}

func (cfg Config) withDefaults() Config {
	orDefault(&cfg.Relay, DefaultRelay)
	orDefault(&cfg.PLC, DefaultPLC)
	orDefault(&cfg.HostRPS, DefaultHostRPS)
	orDefault(&cfg.PerHost, DefaultPerHost)
	orDefault(&cfg.PerAddress, DefaultPerAddress)
	orDefault(&cfg.RelayRPS, DefaultRelayRPS)
	orDefault(&cfg.PLCRPS, DefaultPLCRPS)
	orDefault(&cfg.UserAgent, DefaultUserAgent)
	t := &cfg.Timing
	orDefault(&t.Connect, defaultConnect)
	orDefault(&t.TLS, defaultTLS)
	orDefault(&t.Header, defaultHeader)
	orDefault(&t.BodyIdle, defaultBodyIdle)
	orDefault(&t.Pause, defaultPause)
	orDefault(&t.Probe, defaultProbe)
	orDefault(&t.MaxProbe, defaultMaxProbe)
	orDefault(&t.OutageProbe, defaultOutageProbe)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close ends every connection, and with it every request still under way.
func (c *Client) Close() {
	c.guard.close()
	c.transport.CloseIdleConnections()
}

// ParkedUntil tells whether the host is to be left alone, and until when. It
// speaks of everything but Repo.
func (c *Client) ParkedUntil(host Host) (time.Time, bool) {
	return c.parkedUntil(host, laneOrdinary, wayOrdinary)
}

// RepoParkedUntil is ParkedUntil for Repo, which has a quota of its own: it may
// go on where everything else is spent, and the other way round.
func (c *Client) RepoParkedUntil(host Host) (time.Time, bool) {
	return c.parkedUntil(host, laneRepo, wayRepo)
}

func (c *Client) parkedUntil(host Host, l lane, w way) (time.Time, bool) {
	now := c.cfg.Now()
	if until, down := c.outage.state(); down {
		return until, true
	}
	g := c.gates.look(host)
	if g == nil {
		return time.Time{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parked(l, w, now); p != nil {
		return p.Until, true
	}
	return time.Time{}, false
}

// Outage tells whether our own network is gone.
func (c *Client) Outage() bool {
	_, down := c.outage.state()
	return down
}

// HostState tells how it stands with a host.
func (c *Client) HostState(host Host) HostState {
	g := c.gates.look(host)
	if g == nil {
		return HostState{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	state := g.breakers[wayOrdinary].state()
	state.AskedFor = g.asked
	return state
}

// Held is how many bytes the bodies and repos take at the moment that are being read
// or not closed yet, without the little that each may take unasked.
func (c *Client) Held() int64 { return c.budget.inUse.Load() + c.repos.inUse.Load() }

// networkChanged is told when our own network goes and when it comes back.
func (c *Client) networkChanged(ctx context.Context, gone bool) {
	if !gone {
		c.cfg.Log.InfoContext(ctx, "network is back")
		return
	}
	c.cfg.Log.WarnContext(ctx, "own network is gone", "until", "a host answers")
	c.gates.acquit()
}

func (c *Client) newGate(host Host) *gate {
	rps, inFlight := c.cfg.HostRPS, c.cfg.PerHost
	switch host {
	case c.relay:
		rps, inFlight = c.cfg.RelayRPS, directoryInFlight
	case c.plc:
		rps, inFlight = c.cfg.PLCRPS, directoryInFlight
	}
	t := c.cfg.Timing
	g := newGate(host, rps, inFlight, breaker{first: t.Probe, longest: max(t.Probe, t.MaxProbe)})
	g.noted = func() { c.pauses.note(host) }
	return g
}

// reach opens a connection to host and closes it again.
func (c *Client) reach(ctx context.Context, host Host) bool {
	u, err := url.Parse(string(host))
	if err != nil {
		return false
	}
	port := u.Port()
	if port == "" {
		port = portHTTPS
		if u.Scheme == schemeHTTP {
			port = portHTTP
		}
	}
	// Where there is no room for one connection more, there is no telling: those that
	// are open may stand still, and if they do not, somebody is answered soon.
	conn, err := c.guard.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return false
	}
	_ = conn.Close() // it has said all it was asked
	return true
}
