package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
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

// serviceConfig is everything that can be set about a running server.
type serviceConfig struct {
	listen        string
	basePath      string // that everything stands behind; empty: none
	dataDir       string
	adminKey      string // beside those in the store; none if empty
	relay, plc    string
	contact       string // shown to hosts
	allowPrivate  bool
	hostRPS       float64
	relayRPS      float64 // 0: the default
	plcRPS        float64 // 0: the default
	maxJobs       int
	maxHosts      int
	reposPerHost  int
	collections   []syntax.NSID // tracked, with a job for each that was never read completely
	refresh       time.Duration // how old a tracked collection may become; 0: it is not read again by itself
	publicURL     *url.URL      // under which clients reach the server; nil: not known
	allowHosts    []string      // names under which metrics are answered without a key
	corsOrigins   []string      // of pages that may use the admin API
	noPublicReads bool
	answerBytes   int64  // of answers under way
	accountBytes  int64  // of the database that one account may take; 0: the default
	connections   int    // of clients
	metricsListen string // address of the metrics and of profiles; empty: metrics where everything is, no profiles
	limitMemory   bool   // softly
	notifySocket  string // of the service manager; empty: it is told nothing
	hooks         store.Hooks
}

// service is a whole server: database, network, backfill and HTTP.
type service struct {
	cfg      serviceConfig
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

// openService gets everything ready to run. What had to be done before the first
// request is answered is done when it returns; nothing runs yet but the database.
func openService(ctx context.Context, cfg serviceConfig, log *slog.Logger) (*service, error) {
	s := &service{cfg: cfg, log: log}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *service) open(ctx context.Context) (err error) {
	cfg, log := s.cfg, s.log
	s.metrics = metrics.New(version())
	// Before anything is written: it refuses addresses that cannot be.
	s.network, err = network.New(network.Config{
		Relay: cfg.relay, PLC: cfg.plc, AllowPrivate: cfg.allowPrivate, UserAgent: userAgent(cfg.contact),
		HostRPS: cfg.hostRPS, RelayRPS: cfg.relayRPS, PLCRPS: cfg.plcRPS, Log: log,
		// Whoever asks for more repos at once asks for more requests at once.
		PerHost: max(network.DefaultPerHost, cfg.reposPerHost),
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
		return usageError{err}
	}
	if s.dir, err = makeDataDir(cfg.dataDir); err != nil {
		return err
	}
	s.store, err = store.Open(store.Config{
		Path: filepath.Join(cfg.dataDir, databaseFile), Dir: s.dir, Log: log, Observe: s.metrics.Commit, MaxAccountBytes: cfg.accountBytes, Hooks: cfg.hooks,
	})
	if err != nil {
		return explainOpen(err)
	}
	restrictFiles(ctx, s.dir, log)
	if err := repo.RemoveSpooled(s.dir); err != nil {
		return err
	}
	pauses, err := s.store.Pauses(ctx)
	if err != nil {
		return explainOpen(err)
	}
	s.network.Resume(pauses)
	if cfg.adminKey == "" {
		if s.keyFile, err = bootstrapKey(ctx, s.store, s.dir, time.Now()); err != nil {
			return explainOpen(err)
		}
	}
	s.backfill, err = backfill.New(backfill.Config{
		Store: s.store, Network: s.network, Log: log,
		MaxJobs: cfg.maxJobs, MaxHosts: cfg.maxHosts, ReposPerHost: cfg.reposPerHost, Refresh: cfg.refresh,
	})
	if err != nil {
		return usageError{err}
	}
	web := server.Config{
		Store: s.store, Jobs: s.backfill, Planner: plans{s.backfill}, Hosts: liveHosts{s.network}, AdminKey: cfg.adminKey, Version: version(),
		BasePath: cfg.basePath, PublicURL: cfg.publicURL, AllowHosts: cfg.allowHosts, CORSOrigins: cfg.corsOrigins,
		NoPublicReads: cfg.noPublicReads, AnswerBytes: cfg.answerBytes, Log: log,
		Observe: func(a server.Answered) { s.metrics.Answered(a.Route, a.Method, a.Status, a.Took) },
	}
	if cfg.metricsListen == "" {
		web.Metrics = s.metrics.Handler(log)
	}
	if s.server, err = server.New(web); err != nil {
		return usageError{err}
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
	// maxScrapeConnections is how many connections may be open to the address of the metrics.
	maxScrapeConnections = 32
	// maxLocalConnections is how many may be open to the socket of the data directory. They
	// are not of the bound of the clients, so that those keep no command out.
	maxLocalConnections = 64
)

// listen opens the ports and notes where commands find the server.
func (s *service) listen(ctx context.Context) (err error) {
	l, err := listenOn(ctx, "--listen", s.cfg.listen)
	if err != nil {
		return err
	}
	s.listener = server.LimitConnections(l, cmp.Or(s.cfg.connections, defaultConnections), s.log)
	if s.cfg.metricsListen != "" {
		if l, err = listenOn(ctx, "--metrics-listen", s.cfg.metricsListen); err != nil {
			return err
		}
		s.measured = server.LimitConnections(l, maxScrapeConnections, s.log)
	}
	s.url = localURL(s.listener.Addr(), s.cfg.basePath)
	if s.local, err = listenLocal(ctx, s.dir); err != nil {
		s.log.WarnContext(ctx, "there is no socket for the commands of this machine: they need --url", "url", s.url, "err", err)
	}
	return writeFile(s.dir, urlFile, s.url+"\n")
}

// spool makes a file for a large repo, as long as there is room for the database.
func (s *service) spool() (*os.File, error) {
	if s.store.DiskFull() {
		return nil, store.ErrDiskFull
	}
	return repo.SpoolFile(s.dir)
}

// listenOn opens the port that a flag names.
func listenOn(ctx context.Context, flag, address string) (net.Listener, error) {
	if path, isSocket := strings.CutPrefix(address, unixScheme); isSocket {
		return listenUnix(ctx, flag, path)
	}
	if address == "" { // any port at all addresses of the machine
		return nil, usagef("%s is empty, it must be an address and a port, such as %s", flag, defaultListen)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case isErrno(err, syscall.EADDRINUSE, wsaAddrInUse):
		return nil, fmt.Errorf("listen on %s: the port is in use: stop what uses it, or choose another with %s: %w", address, flag, err)
	case isErrno(err, syscall.EADDRNOTAVAIL, wsaAddrNotAvail):
		return nil, fmt.Errorf("listen on %s: this machine has no such address: choose another with %s: %w", address, flag, err)
	case isErrno(err, syscall.EACCES, wsaAccess):
		return nil, fmt.Errorf("listen on %s: this user may not use the port: choose one from 1024 on with %s: %w", address, flag, err)
	case err != nil:
		if bad, is := errors.AsType[*net.AddrError](err); is {
			return nil, usagef("%s is %q, it must be an address and a port, such as %s: %s", flag, address, defaultListen, bad.Err)
		}
		return nil, fmt.Errorf("listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

// What Windows calls the errors of a port, by numbers of its own.
const (
	wsaAccess       = syscall.Errno(10013)
	wsaAddrInUse    = syscall.Errno(10048)
	wsaAddrNotAvail = syscall.Errno(10049)
	wsaRefused      = syscall.Errno(10061)
)

// isErrno tells whether the system has said this, or on Windows that.
func isErrno(err error, unix, windows syscall.Errno) bool {
	return errors.Is(err, unix) || errors.Is(err, windows)
}

// listenUnix opens a socket of the operator's choice. Who may connect to it is decided by
// its directory: over it as over a port, what is secret needs a key.
func listenUnix(ctx context.Context, flag, path string) (net.Listener, error) {
	if path == "" {
		return nil, usagef("%s is %q, it must name the file of a socket, such as %s/run/appview/http.sock", flag, unixScheme, unixScheme)
	}
	fail := func(err error) error { return fmt.Errorf("listen on %s (%s): %w", path, flag, withoutAddress(err)) }
	// What a process has left that was killed is in the way; what somebody listens on is
	// not to be removed.
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows" {
			return nil, fail(errors.New("there is a file that is no socket: name another"))
		}
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return nil, fail(errors.Join(errors.New("a server listens there: stop it, or name another"), conn.Close()))
		}
		if !isErrno(err, errRefused, wsaRefused) {
			return nil, fail(err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fail(err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fail(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fail(err), l.Close())
	}
	return l, nil
}

// localURL is how a program on this machine reaches what stands behind a path of a
// listener. The address of a socket has no path, and needs none.
func localURL(addr net.Addr, basePath string) string {
	if addr.Network() == "unix" {
		return unixScheme + addr.String()
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String() + basePath
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	// What stands before a zone, as in fe80::1%eth0, begins an escape in a URL.
	return "http://" + strings.Replace(net.JoinHostPort(host, port), "%", "%25", 1) + basePath
}

// track notes the configured collections, also those that were removed at run time,
// and creates a job for each that was never read completely and is not being read.
func (s *service) track(ctx context.Context) error {
	for _, c := range s.cfg.collections {
		if err := s.backfill.ConfigureCollection(ctx, c); err != nil {
			return fmt.Errorf("track %s: %w", c, err)
		}
	}
	return nil
}

// run serves and works until ctx ends or something fails, then ends everything
// in the opposite order of its start. It leaves the database open when that
// takes longer than shutdownTimeout: the file is whole at every moment. When the
// database has failed, that is the error, whoever has met it first.
func (s *service) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	listeners := []net.Listener{s.listener}
	if s.local != nil {
		listeners = append(listeners, server.LimitConnections(s.local, maxLocalConnections, s.log))
	}
	g.Go(func() error { return s.server.Run(gctx, listeners...) })
	g.Go(func() error { return s.backfill.Run(gctx) })
	g.Go(func() error { return s.store.Run(gctx) })
	g.Go(func() error { s.network.PersistPauses(gctx, s.store.PutPauses); return nil })
	if s.cfg.limitMemory {
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
func (s *service) notify(ctx context.Context, state string) {
	if err := notify(s.cfg.notifySocket, state); err != nil {
		s.log.WarnContext(ctx, "the service manager could not be told", "state", state, "err", err)
	}
}

// held is how many bytes large bodies and answers take, beside what the program itself
// takes.
func (s *service) held() int64 { return s.network.Held() + s.server.AnswerBytes() }

// failed is why the database has failed, nil if it has not.
func (s *service) failed() error {
	select {
	case <-s.store.Failed():
		return fmt.Errorf("the database has failed, nothing more is written: %w", s.store.Err())
	default:
		return nil
	}
}

// close gives back what openService took.
func (s *service) close() error {
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
		if err := s.dir.Remove(urlFile); !errors.Is(err, os.ErrNotExist) {
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
func (s *service) savePauses(ctx context.Context) {
	if s.failed() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pausesTimeout)
	defer cancel()
	if err := s.network.SavePauses(ctx, s.store.PutPauses); err != nil {
		s.log.WarnContext(ctx, "what hosts have asked for could not be noted", "err", err)
	}
}

// explainOpen says what to do about a database that does not open, or takes nothing.
func explainOpen(err error) error {
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
func userAgent(contact string) string {
	if contact == "" {
		contact = "its operator has set no contact"
	}
	return fmt.Sprintf("appview/%s (atproto index; %s)", version(), contact)
}
