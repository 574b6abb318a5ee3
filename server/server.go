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

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
)

// Timeouts and sizes of one connection. An export sets its own write deadlines.
const (
	headerTimeout  = 10 * time.Second
	readTimeout    = 30 * time.Second // header and body, of which there is at most maxBody
	writeTimeout   = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// drainTimeout is how long requests under way may take to end at a shutdown.
const drainTimeout = 2 * time.Second

// Jobs commands backfill jobs.
type Jobs interface {
	// Create stores a job and lets its worker start. It does not wait for the network.
	Create(ctx context.Context, req jobs.Request) (jobs.Job, error)
	// Move asks a job to stop (store.StatusCancelling), to pause (store.StatusPausing) or to go
	// on (store.StatusRunning). It fails with jobs.ErrMove when that cannot be asked of it now.
	Move(ctx context.Context, id uuid.UUID, to api.Status) (jobs.Job, error)
	// Retry stores a job that carries on a final one. It fails with jobs.ErrMove if that
	// is not final, and with jobs.ErrNothingLeft if it has left nothing undone.
	Retry(ctx context.Context, id uuid.UUID) (jobs.Job, error)
}

// Progress tells how unfinished jobs go on.
type Progress interface {
	// Progress tells what a job waits for, if it waits, and how fast it is now.
	Progress(job jobs.Job) (waiting api.Waiting, reposPerSecond, recordsPerSecond float64)
	// Waits tells of a job that waits for the relay or the directory which host that is,
	// since when it waits, when the host is asked again, and what came last from there.
	Waits(job jobs.Job) (host string, since, until time.Time, answer string)
}

// Collections keeps the tracked collections.
type Collections interface {
	// AddCollection tracks a collection and has a job read it, which it returns. If it
	// was tracked before, it changes nothing, and returns the job under way, if any.
	AddCollection(ctx context.Context, c syntax.NSID) (job *jobs.Job, added bool, err error)
	// RefreshAt is when a collection is read again by itself; zero: it is not.
	RefreshAt(c jobs.Collection) time.Time
}

// Backfill is everything that reads the network.
type Backfill interface {
	Jobs
	Progress
	Collections
}

// Config says what the server answers from. Store and Jobs are needed.
type Config struct {
	Store         *store.Store
	Jobs          Backfill
	Planner       Planner          // nil: no plans are made
	Hosts         Hosts            // what is known of hosts now; nil: that all may be asked
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
	exports chan struct{} // holds one token for each running export
	reports chan struct{} // holds one token for each running report
	plans   chan struct{} // holds one token for each plan that is made
	streams chan struct{} // holds one token for each running stream of events
	backups chan struct{} // holds one token for each running backup
	budget  *answerBudget // of answers under way
	// answerTime is for how long an answer may be written that is taken not at all.
	answerTime time.Duration
	pace       pace // of clients that take lines
	cache      cache
	ages       cache     // of collections: what syncedHeader says
	buffers    sync.Pool // of *[]byte, for answers
	zips       sync.Pool // of *gzip.Writer

	description json.RawMessage     // of the routes
	files       map[string]pageFile // of the page, by path

	streaming    streaming
	broadcasters broadcasters

	sessions  sessions
	refusals  refusals // of keys
	strangers refusals // of host names
	guesses   *guesses
	hostNames []string // of AllowHosts and PublicURL

	environment func() (uuid.UUID, error) // whose the Idempotency-Keys of cfg.AdminKey are

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
		errs = append(errs, CheckKey(cfg.AdminKey))
	}
	if cfg.AnswerBytes != 0 && cfg.AnswerBytes < LeastAnswerBytes {
		errs = append(errs, fmt.Errorf("%d bytes for answers are too few, at least %d are needed", cfg.AnswerBytes, LeastAnswerBytes))
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
		cfg: cfg, log: cfg.Log,
		exports:    make(chan struct{}, maxExports),
		reports:    make(chan struct{}, maxReports),
		plans:      make(chan struct{}, maxPlans),
		streams:    make(chan struct{}, maxStreams),
		backups:    make(chan struct{}, maxBackups),
		budget:     newAnswerBudget(cmp.Or(cfg.AnswerBytes, DefaultAnswerBytes)),
		cache:      cache{limit: cacheBytes},
		ages:       cache{limit: agesBytes},
		answerTime: writeTimeout,
		pace:       pace{write: lineWriteTimeout, window: lineWindow, rate: lineMinRate},
		streaming:  streaming{beat: streamBeat, write: streamWriteTimeout},
		refusals:   newRefusals(cfg.Log),
		strangers:  newRefusals(cfg.Log),
		guesses:    newGuesses(),
		hostNames:  hostNames,

		environment: sync.OnceValues(func() (uuid.UUID, error) { return environmentOwner(cfg.AdminKey) }),
	}
	s.broadcasters = broadcasters{every: watchEvery, look: s.lookAtJob, jobs: map[uuid.UUID]*broadcaster{}}
	if s.files, err = pageFiles(); err != nil {
		return nil, err
	}
	if s.description, err = newDescription(s.routes(), cfg.Version); err != nil {
		return nil, fmt.Errorf("configure server: %w", err)
	}
	s.mux = s.newMux()
	return s, nil
}

// Run answers requests that come to the listeners until ctx ends, lets those under way
// end, and returns when no handler runs any more. It closes the listeners.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	// Requests outlive ctx: they are drained, not dropped.
	base, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stopping{}, ctx))
	defer cancel()
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients' broken connections
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConnection,
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
