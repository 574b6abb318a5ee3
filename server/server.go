package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"appview/server/answer"
	"appview/server/apikey"
	"appview/server/control"
	"appview/server/reads"
	"appview/server/web"
	"appview/store"
)

// Timeouts and sizes of one connection. An export sets its own write deadlines.
const (
	headerTimeout  = 10 * time.Second
	readTimeout    = 30 * time.Second // header and body, of which there is at most maxBody
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// drainTimeout is how long requests under way may take to end at a shutdown.
const drainTimeout = 2 * time.Second

// Config says what the server answers from. Store and Jobs are needed.
type Config struct {
	Store         *store.Store
	Jobs          control.Backfill
	Planner       control.Planner  // nil: no plans are made
	Hosts         control.Hosts    // what is known of hosts now; nil: that all may be asked
	AdminKey      string           // a key that has every permission, beside those in the store; none if empty
	Version       string           // of the program, shown by stats and health
	BasePath      string           // that all routes stand behind, as ParseBasePath takes it; empty: none
	PublicURL     *url.URL         // under which clients reach the server, from ParsePublicURL; nil: not known
	AllowHosts    []string         // names that no stranger owns, beside those that none can own
	CORSOrigins   []string         // of pages that may use the admin API; none: no other than its own
	NoPublicReads bool             // do not answer reads without a key
	AnswerBytes   int64            // of answers under way; 0: DefaultAnswerBytes
	Ready         func() error     // why the rest of the process is not ready; nil if it always is
	Metrics       http.Handler     // answers /metrics, behind GuardMetrics; nil: there is none
	Observe       func(Answered)   // told of every answer; must not wait for anything
	Log           *slog.Logger     // default: nowhere
	Now           func() time.Time // default: time.Now
}

// Server answers requests. It is made by New.
type Server struct {
	cfg     Config
	log     *slog.Logger
	mux     *http.ServeMux
	out     *answer.Answers
	control *control.Control
	reads   *reads.Reads

	description json.RawMessage // of the routes
	page        *web.Page

	sessions  sessions
	refusals  refusals // of keys
	strangers refusals // of host names
	guesses   *guesses
	hostNames []string // of AllowHosts and PublicURL

	serving sync.RWMutex // held for reading by every request
	closed  bool         // guarded by serving
}

// New checks the configuration.
func New(cfg Config) (*Server, error) {
	var errs []error
	if cfg.Store == nil {
		errs = append(errs, errors.New("no store"))
	}
	if cfg.Jobs == nil {
		errs = append(errs, errors.New("no jobs"))
	}
	if cfg.AdminKey != "" {
		errs = append(errs, apikey.Check(cfg.AdminKey))
	}
	if cfg.AnswerBytes != 0 && cfg.AnswerBytes < answer.LeastAnswerBytes {
		errs = append(errs, fmt.Errorf("%d bytes for answers are too few, at least %d are needed", cfg.AnswerBytes, answer.LeastAnswerBytes))
	}
	hostNames, err := cfg.hostNames()
	errs = append(errs, err, cfg.checkOrigins())
	cfg.BasePath, err = ParseBasePath(cfg.BasePath)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("configure server: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, out: answer.New(cfg.Log, cfg.Version, cmp.Or(cfg.AnswerBytes, answer.DefaultAnswerBytes)),
		refusals: newRefusals(cfg.Log), strangers: newRefusals(cfg.Log), guesses: newGuesses(), hostNames: hostNames,
	}
	s.out.PathForClients, s.out.WhileKeyIsGood = s.pathForClients, s.whileKeyIsGood
	s.reads = reads.New(cfg.Store, s.out)
	s.control = control.New(control.Config{
		Store: cfg.Store, Jobs: cfg.Jobs, Planner: cfg.Planner, Hosts: cfg.Hosts, AdminKey: cfg.AdminKey, Version: cfg.Version,
		Allows: allows, Revoked: s.sessions.revoke, Log: cfg.Log, Now: cfg.Now,
	}, s.out)
	if s.page, err = web.New(); err != nil {
		return nil, err
	}
	if s.description, err = s.describe(); err != nil {
		return nil, fmt.Errorf("configure server: %w", err)
	}
	s.mux = s.newMux()
	return s, nil
}

// Run answers requests that come to the listeners until ctx ends, lets those under way
// end, and returns when no handler runs any more. It closes the listeners.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	// Requests outlive ctx: they are drained, not dropped.
	base, cancel := context.WithCancel(answer.WithStop(context.WithoutCancel(ctx), ctx))
	defer cancel()
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      answer.Timeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients' broken connections
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       answer.WithConnection,
		ConnState:         connState,
	}
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				served <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
				return
			}
			served <- nil
		}()
	}
	var err error
	left := len(listeners)
	select {
	case err = <-served:
		left--
	case <-ctx.Done():
		drain, stop := context.WithTimeout(base, drainTimeout)
		if hs.Shutdown(drain) != nil {
			s.log.WarnContext(base, "requests did not end in time and are cut")
		}
		stop()
	}
	cancel()
	errClose := hs.Close()
	for range left {
		err = errors.Join(err, <-served)
	}
	s.close()
	return errors.Join(err, errClose)
}

// close waits for the handlers, which Shutdown and Close of net/http do not.
func (s *Server) close() {
	s.serving.Lock()
	defer s.serving.Unlock()
	s.closed = true
}
