package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"appview/backfill/read"
	"appview/internal/api"
	"appview/internal/network"
	"appview/store"
	"appview/store/jobs"
)

// Config says what to work with and how much at once. Zero values mean the
// defaults.
type Config struct {
	Store   *store.Store
	Network *network.Client

	MaxJobs      int           // network jobs worked on at once: 2
	MaxHosts     int           // hosts read from at once, over all jobs: 128
	ReposPerHost int           // repos of a host read at once by a job: 4
	Attempts     int           // at a repo, before it is given up: 5
	Retry        time.Duration // before the second attempt; doubles with each: 2 s
	Turn         time.Duration // of a host, before others get theirs: 10 s
	Reading      time.Duration // of one repo, before it is given up as too large: 2 h
	Silence      time.Duration // of every host that a job still needs, before what it owes there is given up: 3 min
	Refresh      time.Duration // how old a tracked collection may become; 0: it is not read again by itself

	Log *slog.Logger     // default: slog.Default
	Now func() time.Time // default: time.Now
}

const (
	defaultMaxJobs      = 2
	defaultMaxHosts     = 128
	defaultReposPerHost = 4
	defaultAttempts     = 5
	defaultRetry        = 2 * time.Second
	defaultTurn         = 10 * time.Second
	defaultReading      = 2 * time.Hour
	defaultSilence      = 3 * time.Minute

	// overflowShare is the size of the overflow pool in times of MaxHosts: hosts that go
	// on reading a few repos when their turn is over.
	overflowShare = 4

	// maxDIDJobs is how many jobs that name DIDs are worked on at once. They do not
	// wait behind those that cover the network.
	maxDIDJobs = 4
)

// Backfill works through the jobs in a store.
type Backfill struct {
	cfg      Config
	hosts    *semaphore.Weighted // slots of hosts that are read from in their turn
	overflow *semaphore.Weighted // slots of those that have yielded theirs
	claims   *claims
	health   *health
	buffered atomic.Int64 // bytes of records that are read and not committed
	scans    atomic.Int64 // scans of queues that still take tasks, or wait for these to be read

	directory directory
	relayed   atomic.Bool // the relay has answered this process

	follow func(syntax.DID) bool // read.Follow, or a test's choice

	began time.Time     // of New
	wake  chan struct{} // a job was created, asked to stop or to go on, or its worker has ended
	ended chan struct{} // a job has ended

	mu      sync.Mutex
	workers map[uuid.UUID]*worker
}

// errAsked is why a worker's context ends when its job is to stop or to pause.
var errAsked = errors.New("the job was asked to stop or to pause")

// New checks the configuration.
func New(cfg Config) (*Backfill, error) {
	if cfg.Store == nil || cfg.Network == nil {
		return nil, errors.New("backfill: a store and a network are needed")
	}
	var err error
	for _, n := range []struct {
		name  string
		value *int
		def   int
	}{
		{"max jobs", &cfg.MaxJobs, defaultMaxJobs},
		{"max hosts", &cfg.MaxHosts, defaultMaxHosts},
		{"repos per host", &cfg.ReposPerHost, defaultReposPerHost},
		{"attempts", &cfg.Attempts, defaultAttempts},
	} {
		if *n.value < 0 {
			err = errors.Join(err, fmt.Errorf("backfill: %s is %d, but must be at least 1", n.name, *n.value))
		}
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	if cfg.Refresh < 0 {
		err = errors.Join(err, fmt.Errorf("backfill: refresh is %s, but must not be negative", cfg.Refresh))
	}
	cfg.Retry = cmp.Or(cfg.Retry, defaultRetry)
	cfg.Turn = cmp.Or(cfg.Turn, defaultTurn)
	cfg.Reading = cmp.Or(cfg.Reading, defaultReading)
	cfg.Silence = cmp.Or(cfg.Silence, defaultSilence)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Backfill{
		cfg:      cfg,
		hosts:    semaphore.NewWeighted(int64(cfg.MaxHosts)),
		overflow: semaphore.NewWeighted(overflowShare * int64(cfg.MaxHosts)),
		claims:   newClaims(),
		health:   newHealth(),

		directory: directory{checking: semaphore.NewWeighted(1)},
		follow:    read.Follow,
		began:     cfg.Now(),
		wake:      make(chan struct{}, 1),
		ended:     make(chan struct{}, 1),
		workers:   map[uuid.UUID]*worker{},
	}, err
}

// now is the time by which everything is scheduled. It goes on evenly, as long as the
// machine is awake: a wall clock that is set, or jumps, makes nothing due, and lets
// nothing wait. What it writes into rows is read by another process with due, and
// with an eye on when that began.
func (b *Backfill) now() time.Time { return b.began.Add(b.cfg.Now().Sub(b.began)) }

// Recover stops the jobs that were asked to stop or to pause before the process
// ended. It is to be called before the first request is answered.
func (b *Backfill) Recover(ctx context.Context) error {
	jobs, err := b.cfg.Store.Jobs.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("recover jobs: %w", err)
	}
	for _, j := range jobs {
		if !asked(j) {
			continue
		}
		if _, err := b.cfg.Store.Jobs.FinishJob(ctx, j.Seq, summary); err != nil {
			return fmt.Errorf("recover job %s: %w", j.ID, err)
		}
	}
	return nil
}

// asked reports whether the job is to stop or to pause, and does not yet.
func asked(j jobs.Job) bool {
	return j.Status == api.StatusCancelling || j.Status == api.StatusPausing
}

// Create stores a new job and has it worked on. What it covers is fixed here.
func (b *Backfill) Create(ctx context.Context, req jobs.Request) (jobs.Job, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return jobs.Job{}, fmt.Errorf("create job: %w", err)
	}
	job, err := b.cfg.Store.Jobs.CreateJob(ctx, id, req, nil)
	if err != nil {
		return jobs.Job{}, err
	}
	b.cfg.Log.InfoContext(ctx, "job created", "job", job.ID, "collection", req.Collection, "did", req.DID)
	b.notify()
	return job, nil
}

// Retry stores a new job that carries a final one on, and has it worked on. It
// fails with jobs.ErrMove when the job is not final, with jobs.ErrNothingLeft
// when it has left nothing undone, and with store.ErrNotFound when there is none.
func (b *Backfill) Retry(ctx context.Context, old uuid.UUID) (jobs.Job, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return jobs.Job{}, fmt.Errorf("retry job: %w", err)
	}
	job, err := b.cfg.Store.Jobs.RetryJob(ctx, old, id)
	if err != nil {
		return jobs.Job{}, err
	}
	b.cfg.Log.InfoContext(ctx, "job created", "job", job.ID, "retry_of", old)
	b.notify()
	return job, nil
}

// Move asks a job to stop (api.StatusCancelling), to pause (api.StatusPausing)
// or to go on (api.StatusRunning). It fails with jobs.ErrMove when the job is not
// in a status from which it can, and with store.ErrNotFound when there is none.
func (b *Backfill) Move(ctx context.Context, id uuid.UUID, to api.Status) (jobs.Job, error) {
	job, err := b.cfg.Store.Jobs.MoveJob(ctx, id, to)
	if err != nil {
		return jobs.Job{}, err
	}
	b.cfg.Log.InfoContext(ctx, "job was asked for", "job", id, "status", to)
	if to != api.StatusRunning {
		// The worker may be one that was started after the job had paused already,
		// and went on: then the job owes work and has no worker, and gets the next.
		b.mu.Lock()
		if w := b.workers[id]; w != nil {
			w.cancel(errAsked)
		}
		b.mu.Unlock()
	}
	b.notify()
	return job, nil
}

func (b *Backfill) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run works on jobs, and creates those that keep collections fresh, until ctx ends or
// the store fails. Jobs that are not done then go on in the next process. It returns
// when every goroutine that it has started has ended.
func (b *Backfill) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.refresh(ctx) })
	g.Go(func() error {
		for {
			if err := b.start(ctx, g); err != nil {
				return stopped(ctx, err)
			}
			select {
			case <-b.wake:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// stopped hides the errors that a shutdown causes: it is no failure.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// start takes up the jobs for which there is room, oldest first.
func (b *Backfill) start(ctx context.Context, g *errgroup.Group) error {
	jobs, err := b.cfg.Store.Jobs.Unfinished(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	network, dids := 0, 0
	for _, w := range b.workers {
		if w.named {
			dids++
		} else {
			network++
		}
	}
	for _, j := range jobs {
		if j.Status == api.StatusPaused || b.workers[j.ID] != nil {
			continue
		}
		named := !j.Request.Network()
		switch {
		case asked(j): // it never got its turn
		case named && dids < maxDIDJobs:
			dids++
		case !named && network < b.cfg.MaxJobs:
			network++
		default:
			continue
		}
		w := newWorker(b, j)
		var own context.Context
		own, w.cancel = context.WithCancelCause(ctx)
		b.workers[j.ID] = w
		g.Go(func() error { return b.work(ctx, own, w) })
	}
	return nil
}

// work runs one worker to its end and notes what has become of its job. The
// worker's own context ends earlier than ctx when its job is to stop or to pause.
func (b *Backfill) work(ctx, own context.Context, w *worker) error {
	defer func() {
		w.cancel(nil)
		b.mu.Lock()
		delete(b.workers, w.id)
		b.mu.Unlock()
		b.notify()
		notify(b.ended)
	}()
	if err := w.run(own); err != nil && !errors.Is(context.Cause(own), errAsked) {
		// At a shutdown the rows say what is owed.
		return stopped(ctx, fmt.Errorf("job %s: %w", w.id, err))
	}
	job, err := b.cfg.Store.Jobs.FinishJob(ctx, w.seq, summary)
	if err != nil {
		return stopped(ctx, fmt.Errorf("job %s: %w", w.id, err))
	}
	switch {
	case job.Status == api.StatusPaused:
		b.cfg.Log.InfoContext(ctx, "job paused", "job", job.ID, "repos", job.TotalRepos, "processed", job.Processed)
		return nil
	case !job.Status.Final():
		// It was asked to pause and to go on, faster than the worker heard of it; or
		// another job has found out that repos are to be reopened. The next worker does.
		return nil
	}
	b.cfg.Log.InfoContext(ctx, "job ended", "job", job.ID, "status", job.Status, "repos", job.TotalRepos,
		"failed", job.Failed, "unavailable", job.Unavailable, "records", job.Tally.Records,
		"created", job.Tally.Created, "updated", job.Tally.Updated, "deleted", job.Tally.Deleted, "err", job.Error)
	return nil
}
