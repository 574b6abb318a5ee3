package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"appview/internal/network/polite"
	"appview/internal/network/repo"
	"appview/internal/network/transport"
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

	// serviceInFlight is the in-flight cap of the relay and the PLC directory.
	serviceInFlight = 128

	// bodyBudget is what all bodies together may take, each past its first few bytes.
	bodyBudget = 40 << 20
	// repoBudget is the same for repos. It is apart because a repo takes memory until
	// its records are stored, and no page should wait for that.
	repoBudget = 56 << 20
	// spoolBudget bounds the files of all repos that are too large for memory.
	spoolBudget = 1 << 30
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
	OutageProbe time.Duration // between two probes of our own network; 15 s
}

// What a call is about, and how it fails.
type (
	// Host is where requests go.
	Host = polite.Host
	// Parked is the error of a call whose host is to be left alone until a known moment.
	Parked = polite.Parked
	// Error is how every other call fails, except by the caller's context.
	Error = transport.Error
)

// Client asks hosts. It is safe for concurrent use, and meant to be shared by
// everything in the process. Its gates say how the hosts stand.
type Client struct {
	*polite.Gates

	cfg        Config
	relay, plc Host
	transport  *transport.Client
	bodies     *polite.Budget // of bodies in one piece
	repos      *polite.Budget
	samples    samples
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
	c := &Client{
		cfg: cfg, bodies: polite.NewBudget(bodyBudget, maxPageBody),
		repos: polite.NewSpooledBudget(repoBudget, repo.MaxMemory, spoolBudget, repo.MaxCAR),
	}
	var err error
	if c.relay, err = c.ParseHost(cfg.Relay); err != nil {
		errs = append(errs, fmt.Errorf("relay: %w", err))
	}
	if c.plc, err = c.ParseHost(cfg.PLC); err != nil {
		errs = append(errs, fmt.Errorf("plc: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	services, t := []Host{c.relay, c.plc}, cfg.Timing
	c.Gates = polite.New(polite.Config{
		Limits: c.limits, Pause: t.Pause, Probe: t.Probe, MaxProbe: t.MaxProbe, OutageProbe: t.OutageProbe,
		Reach:    func(ctx context.Context, host Host) bool { return c.transport.Reach(ctx, host) },
		Services: services, OnForget: c.samples.forget, Log: cfg.Log, Now: cfg.Now,
	})
	c.transport = transport.New(transport.Config{
		AllowPrivate: cfg.AllowPrivate, PerAddress: cfg.PerAddress, IdlePerHost: max(cfg.PerHost, serviceInFlight), UserAgent: cfg.UserAgent,
		Timing:   transport.Timing{Connect: t.Connect, TLS: t.TLS, Header: t.Header, BodyIdle: t.BodyIdle},
		Resolver: cfg.Resolver, Gates: c.Gates, Services: services, Log: cfg.Log, Now: cfg.Now,
		Observe: c.observe, RefusesAll: c.samples.refusesAll,
	})
	return c, nil
}

// limits are the requests a second to a host, and those in flight, at most.
func (c *Client) limits(host Host) (rps float64, inFlight int) {
	switch host {
	case c.relay:
		return c.cfg.RelayRPS, serviceInFlight
	case c.plc:
		return c.cfg.PLCRPS, serviceInFlight
	default:
		return c.cfg.HostRPS, c.cfg.PerHost
	}
}

// ParseHost reads a service endpoint as a DID document or a flag gives it: see
// transport.ParseHost.
func (c *Client) ParseHost(endpoint string) (Host, error) {
	return transport.ParseHost(endpoint, c.cfg.AllowPrivate)
}

// newRequest is a question about a subject, which tells it from others to the breaker.
func newRequest(op string, host Host, subject, target string, limit int64) transport.Request {
	return transport.Request{Question: polite.Question{Op: op, Host: host, Subject: subject}, Target: target, Limit: limit}
}

// newServiceRequest is a listing or a look-up, which has a circuit of its own.
func newServiceRequest(op string, host Host, subject, target string, limit int64) transport.Request {
	q := newRequest(op, host, subject, target, limit)
	q.Circuit = polite.CircuitService
	return q
}

// fetch asks a question, with the budget of bodies if it has no other.
func (c *Client) fetch(ctx context.Context, q transport.Request) (*transport.Answer, error) {
	if q.Budget == nil {
		q.Budget = c.bodies
	}
	return c.transport.Fetch(ctx, q)
}

// Relay is the relay's host, for HostState and for messages.
func (c *Client) Relay() Host { return c.relay }

// PLC is the PLC directory's host.
func (c *Client) PLC() Host { return c.plc }

// PLCRPS is how many requests a second the PLC directory is asked at most.
func (c *Client) PLCRPS() float64 { return c.cfg.PLCRPS }

// Close ends every connection, and with it every request still under way.
func (c *Client) Close() { c.transport.Close() }

// ParkedUntil reports whether the host is to be left alone, and until when. It
// speaks of everything but Repo.
func (c *Client) ParkedUntil(host Host) (time.Time, bool) {
	return c.Gates.ParkedUntil(host, polite.ScopeOrdinary, polite.CircuitOrdinary)
}

// RepoParkedUntil is ParkedUntil for Repo, which has a quota of its own: it may
// go on where everything else is spent, and the other way round.
func (c *Client) RepoParkedUntil(host Host) (time.Time, bool) {
	return c.Gates.ParkedUntil(host, polite.ScopeRepo, polite.CircuitRepo)
}

// DirectoryParked reports whether the PLC directory is to be left alone: it does not
// answer, or has asked for a pause.
func (c *Client) DirectoryParked() bool {
	_, parked := c.Gates.ParkedUntil(c.plc, polite.ScopeOrdinary, polite.CircuitService)
	return parked
}

// Held is how many bytes the bodies and repos take at the moment that are being read
// or not closed yet, without the little that each may take unasked.
func (c *Client) Held() int64 { return c.bodies.InUse() + c.repos.InUse() }

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
