package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"appview/backfill"
	"appview/internal/datadir"
	"appview/internal/metrics"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/repo"
	"appview/server"
	"appview/store"
)

// shutdownTimeout is how long everything may take to end after the first signal,
// a little less than the five seconds that are promised.
const shutdownTimeout = 4500 * time.Millisecond

// Config is everything that can be set about a running server.
type Config struct {
	Listen        string
	BasePath      string // that everything stands behind; empty: none
	DataDir       string
	AdminKey      string // beside those in the store; none if empty
	Relay, PLC    string
	Contact       string // shown to hosts
	AllowPrivate  bool
	HostRPS       float64
	RelayRPS      float64 // 0: the default
	PLCRPS        float64 // 0: the default
	MaxJobs       int
	MaxHosts      int
	ReposPerHost  int
	Collections   []syntax.NSID // tracked, with a job for each that was never read completely
	Refresh       time.Duration // how old a tracked collection may become; 0: it is not read again by itself
	PublicURL     *url.URL      // under which clients reach the server; nil: not known
	AllowHosts    []string      // names under which metrics are answered without a key
	CORSOrigins   []string      // of pages that may use the admin API
	NoPublicReads bool
	AnswerBytes   int64  // of answers under way
	AccountBytes  int64  // of the database that one account may take; 0: the default
	Connections   int    // of clients
	MetricsListen string // address of the metrics and of profiles; empty: metrics where everything is, no profiles
	LimitMemory   bool   // softly
	NotifySocket  string // of the service manager; empty: it is told nothing
	Version       string
	Log           *slog.Logger
	Hooks         store.Hooks
}

// Service is a whole server: database, network, backfill and HTTP.
type Service struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics.Metrics
	store    *store.Store
	network  *network.Client
	backfill *backfill.Backfill
	server   *server.Server
	dir      *datadir.Dir
	listener *server.Connections
	local    *localSocket        // for commands on this machine; nil where there can be none
	measured *server.Connections // of metrics alone; nil if there is none
	url      string              // where commands on this machine find it
	keyFile  string              // where they find its key, if it was put there now
}

// New gets everything ready to run. What had to be done before the first
// request is answered is done when it returns; nothing runs yet but the database.
func New(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, log: cfg.Log}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Service) open(ctx context.Context) (err error) {
	cfg, log := s.cfg, s.log
	if err := checkAddress(ctx, "--listen", cfg.Listen); err != nil {
		return err
	}
	if cfg.MetricsListen != "" {
		if err := checkAddress(ctx, "--metrics-listen", cfg.MetricsListen); err != nil {
			return err
		}
	}
	s.metrics = metrics.New(cfg.Version)
	// Before anything is written: it refuses addresses that cannot be.
	s.network, err = network.New(network.Config{
		Relay: cfg.Relay, PLC: cfg.PLC, AllowPrivate: cfg.AllowPrivate, UserAgent: userAgent(cfg.Version, cfg.Contact),
		HostRPS: cfg.HostRPS, RelayRPS: cfg.RelayRPS, PLCRPS: cfg.PLCRPS, Log: log,
		// Whoever asks for more repos at once asks for more requests at once.
		PerHost: max(network.DefaultPerHost, cfg.ReposPerHost),
		Observe: s.metrics.Exchange,
		Spool:   s.spool,
	})
	switch bad, _ := errors.AsType[*network.Error](err); {
	case bad == nil:
	case bad.Reason == outcome.ReasonRefusedAddress:
		err = fmt.Errorf("%w: --allow-private-hosts allows it", err)
	case bad.Reason == outcome.ReasonBadEndpoint:
		err = fmt.Errorf("%w: give it as https://NAME; --allow-private-hosts allows http, and any port", err)
	}
	if err != nil {
		return AsUsage(err)
	}
	if s.dir, err = MakeDataDir(cfg.DataDir); err != nil {
		return err
	}
	s.store, err = store.Open(store.Config{
		Path: filepath.Join(cfg.DataDir, DatabaseFile), Dir: s.dir, Log: log, Observe: s.metrics.Commit, MaxAccountBytes: cfg.AccountBytes, Hooks: cfg.Hooks,
	})
	if err != nil {
		return ExplainOpen(err)
	}
	restrictFiles(ctx, s.dir, log)
	if err := repo.RemoveSpooled(s.dir); err != nil {
		return err
	}
	pauses, err := s.store.Work.Pauses(ctx)
	if err != nil {
		return ExplainOpen(err)
	}
	s.network.Resume(pauses)
	if cfg.AdminKey == "" {
		if s.keyFile, err = BootstrapKey(ctx, s.store, s.dir, time.Now()); err != nil {
			return ExplainOpen(err)
		}
	}
	s.backfill, err = backfill.New(backfill.Config{
		Store: s.store, Network: s.network, Log: log,
		MaxJobs: cfg.MaxJobs, MaxHosts: cfg.MaxHosts, ReposPerHost: cfg.ReposPerHost, Refresh: cfg.Refresh,
	})
	if err != nil {
		return AsUsage(err)
	}
	web := server.Config{
		Store: s.store, Jobs: s.backfill, Planner: plans{s.backfill}, Hosts: liveHosts{s.network}, AdminKey: cfg.AdminKey, Version: cfg.Version,
		BasePath: cfg.BasePath, PublicURL: cfg.PublicURL, AllowHosts: cfg.AllowHosts, CORSOrigins: cfg.CORSOrigins,
		NoPublicReads: cfg.NoPublicReads, AnswerBytes: cfg.AnswerBytes, Log: log,
		Observe: func(a server.Answered) { s.metrics.Answered(a.Route, a.Method, a.Status, a.Took) },
	}
	if cfg.MetricsListen == "" {
		web.Metrics = s.metrics.Handler(log)
	}
	if s.server, err = server.New(web); err != nil {
		return AsUsage(err)
	}
	if err := s.metrics.Watch(metrics.Sources{Store: s.store, Jobs: s.backfill, Network: s.network, Clients: s.server}); err != nil {
		return fmt.Errorf("prepare metrics: %w", err)
	}
	// Before the first request: a job that was asked to stop is shown as stopped.
	if err := s.backfill.Recover(ctx); err != nil {
		return err
	}
	return s.listen(ctx)
}

const (
	// DefaultListen is the address that is shown as an example.
	DefaultListen = "127.0.0.1:3000"
	// DefaultConnections is how many clients may be connected at once.
	DefaultConnections = 1024
	// maxScrapeConnections is how many connections may be open to the address of the metrics.
	maxScrapeConnections = 32
	// MaxLocalConnections is how many may be open to the socket of the data directory. They
	// are not of the bound of the clients, so that those keep no command out.
	MaxLocalConnections = 64
)

// listen opens the ports and notes where commands find the server.
func (s *Service) listen(ctx context.Context) (err error) {
	l, err := listenOn(ctx, "--listen", s.cfg.Listen)
	if err != nil {
		return err
	}
	s.listener = server.LimitConnections(l, cmp.Or(s.cfg.Connections, DefaultConnections), s.log)
	if s.cfg.MetricsListen != "" {
		if l, err = listenOn(ctx, "--metrics-listen", s.cfg.MetricsListen); err != nil {
			return err
		}
		s.measured = server.LimitConnections(l, maxScrapeConnections, s.log)
	}
	s.url = localURL(s.listener.Addr(), s.cfg.BasePath)
	if s.local, err = listenLocal(ctx, s.dir); err != nil {
		s.log.WarnContext(ctx, "there is no socket for the commands of this machine: they need --url", "url", s.url, "err", err)
	}
	return writeFile(s.dir, URLFile, s.url+"\n")
}

// spool makes a file for a large repo, as long as there is room for the database.
func (s *Service) spool() (*os.File, error) {
	if s.store.DiskFull() {
		return nil, store.ErrDiskFull
	}
	return repo.SpoolFile(s.dir)
}

// URL is where commands on this machine find the server.
func (s *Service) URL() string { return s.url }

// Key is the admin key of the data directory.
func (s *Service) Key() (string, error) { return ReadKey(s.dir) }

// announce tells the operator where everything is.
func (s *Service) announce(ctx context.Context) {
	if s.keyFile != "" {
		s.log.InfoContext(ctx, "admin key", "file", s.keyFile)
	}
	if s.measured != nil {
		s.log.InfoContext(ctx, "metrics and profiles", "listen", s.measured.Addr().String())
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("url", s.url), slog.String("listen", s.listener.Addr().String()),
		slog.String("data_dir", s.cfg.DataDir), slog.String("relay", s.cfg.Relay), slog.String("version", s.cfg.Version))
}

// track notes the configured collections, also those that were removed at run time,
// and creates a job for each that was never read completely and is not being read.
func (s *Service) track(ctx context.Context) error {
	for _, c := range s.cfg.Collections {
		if err := s.backfill.ConfigureCollection(ctx, c); err != nil {
			return fmt.Errorf("track %s: %w", c, err)
		}
	}
	return nil
}

// Run tracks the configured collections, serves and works until ctx ends or something fails, then ends everything
// in the opposite order of its start. It leaves the database open when that
// takes longer than shutdownTimeout: the file is whole at every moment. When the
// database has failed, that is the error, whoever has met it first.
func (s *Service) Run(ctx context.Context) error {
	s.announce(ctx)
	// A start must not be refused because a job could not be created: what is
	// served is there, and the next start tries again.
	if err := s.track(ctx); err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "tracked collections are not all covered", "err", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	listeners := []net.Listener{s.listener}
	if s.local != nil {
		listeners = append(listeners, server.LimitConnections(s.local, MaxLocalConnections, s.log))
	}
	g.Go(func() error { return s.server.Run(gctx, listeners...) })
	g.Go(func() error { return s.backfill.Run(gctx) })
	g.Go(func() error { return s.store.Run(gctx) })
	g.Go(func() error { s.network.PersistPauses(gctx, s.store.Work.PutPauses); return nil })
	if s.cfg.LimitMemory {
		g.Go(func() error { limitMemory(gctx, s.held, debug.SetMemoryLimit); return nil })
	}
	if s.measured != nil {
		g.Go(func() error { return s.metrics.Serve(gctx, s.measured, s.server.GuardMetrics, s.log) })
	}
	g.Go(func() error {
		select {
		case <-s.store.Failed():
			return s.failed()
		case <-gctx.Done():
			return nil
		}
	})
	s.notify(gctx, notifyReady)
	done := make(chan error, 1)
	go func() {
		err := g.Wait()
		s.savePauses(ctx)
		done <- errors.Join(err, s.close())
	}()
	<-gctx.Done()
	s.log.InfoContext(ctx, "stopping")
	s.notify(ctx, notifyStopping)
	late := time.NewTimer(shutdownTimeout)
	defer late.Stop()
	select {
	case err := <-done:
		if failed := s.failed(); failed != nil {
			return failed
		}
		return err
	case <-late.C:
		return errors.Join(s.failed(), fmt.Errorf("not everything stopped within %s: ended with the database open", shutdownTimeout))
	}
}

// notify tells the service manager how the program fares. What runs goes on if it cannot be
// told.
func (s *Service) notify(ctx context.Context, state string) {
	if err := notify(s.cfg.NotifySocket, state); err != nil {
		s.log.WarnContext(ctx, "the service manager could not be told", "state", state, "err", err)
	}
}

// held is how many bytes large bodies and answers take, beside what the program itself
// takes.
func (s *Service) held() int64 { return s.network.Held() + s.server.AnswerBytes() }

// failed is why the database has failed, nil if it has not.
func (s *Service) failed() error {
	select {
	case <-s.store.Failed():
		return fmt.Errorf("the database has failed, nothing more is written: %w", s.store.Err())
	default:
		return nil
	}
}

// close gives back what New took.
func (s *Service) close() error {
	var errs []error
	if s.measured != nil {
		if err := s.measured.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		if err := s.dir.Remove(URLFile); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if s.local != nil {
		if err := s.local.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.network != nil {
		s.network.Close()
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

// pausesTimeout bounds the last note of what hosts have asked for.
const pausesTimeout = time.Second

// savePauses notes what hosts have asked for at the end, unless the database has failed.
func (s *Service) savePauses(ctx context.Context) {
	if s.failed() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pausesTimeout)
	defer cancel()
	if err := s.network.SavePauses(ctx, s.store.Work.PutPauses); err != nil {
		s.log.WarnContext(ctx, "what hosts have asked for could not be noted", "err", err)
	}
}

// ExplainOpen says what to do about a database that does not open, or takes nothing.
func ExplainOpen(err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("%w: stop it, or choose another --data-dir", err)
	case errors.Is(err, store.ErrNewer):
		return fmt.Errorf("%w: run that version, or restore a backup from before it", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: the user that runs appview must be able to write there", err)
	case errors.Is(err, store.ErrDiskFull):
		return fmt.Errorf("%w: make room there, or choose another --data-dir", err)
	default:
		return err
	}
}

// userAgent is how the program shows itself to hosts.
func userAgent(version, contact string) string {
	if contact == "" {
		contact = "its operator has set no contact"
	}
	return fmt.Sprintf("appview/%s (atproto index; %s)", version, contact)
}
