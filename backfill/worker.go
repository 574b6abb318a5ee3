package backfill

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"appview/backfill/read"
	"appview/internal/api"
	"appview/store/jobs"
)

// worker works on one job.
type worker struct {
	b       *Backfill
	id      uuid.UUID
	seq     uint64
	named   bool // the job names its DIDs
	targets []syntax.NSID
	request jobs.Request
	retry   bool // it carries another job on
	log     *slog.Logger
	began   time.Time // in this process

	cancel context.CancelCauseFunc // ends run from outside

	found  [2]chan struct{} // there are new repos to look up, or no more will come
	doubts chan struct{}    // there may be repos to reopen
	listed atomic.Bool      // discovery is over
	judged chan struct{}    // there may be hosts to give up
	queues queues

	silence     silence
	plcResolved atomic.Bool // nothing is to be looked up in the directory any more…
	webResolved atomic.Bool // …or on hosts of their own
	webOver     atomic.Bool // a look-up there that fails is the last

	reader *read.Reader
	rate   rate

	relay, directory serviceWait
}

func newWorker(b *Backfill, j jobs.Job) *worker {
	w := &worker{
		b: b, id: j.ID, seq: j.Seq, named: !j.Request.Network(), targets: j.Targets, request: j.Request, retry: j.RetryOf != 0,
		log:    b.cfg.Log.With("job", j.ID),
		began:  b.now(),
		found:  [...]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
		doubts: make(chan struct{}, 1),
		judged: make(chan struct{}, 1),

		relay: serviceWait{what: "relay"}, directory: serviceWait{what: "directory", lapses: waitLapses},
	}
	w.queues.changed = make(chan struct{}, 1)
	net, st := b.cfg.Network, b.cfg.Store
	w.reader = read.New(read.Config{
		Job: j.Seq, Targets: j.Targets, Attempts: b.cfg.Attempts, Limit: b.cfg.Reading,
		Network:  read.Network{Repos: net, Records: net, Limits: net, Lookup: w.lookup},
		Store:    read.Store{Index: st.Index, Listings: st.Work, Ends: st.Work, Steps: st.Work},
		Buffered: &b.buffered, Follow: b.follow, Fresh: w.isFresh, Progress: w.healthy, Now: b.now, Log: w.log,
	})
	return w
}

// run works until nothing is owed any more.
func (w *worker) run(ctx context.Context) error {
	job, err := w.b.cfg.Store.Jobs.StartJob(ctx, w.seq)
	if err != nil || job.Status != api.StatusRunning {
		return err
	}
	w.listed.Store(job.Discovered) // as it is now: the row that the worker was made from may be older
	w.log.InfoContext(ctx, "job started", "stage", job.Stage, "repos", job.TotalRepos, "processed", job.Processed)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.discover(ctx) })
	resolving, stop := context.WithCancel(ctx)
	g.Go(func() error {
		// When nothing is owed any more, a look-up under way is of no use.
		if err := w.resolve(resolving); ctx.Err() != nil || resolving.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		return w.fetch(ctx)
	})
	return g.Wait()
}

// more wakes whoever looks repos up.
func (w *worker) more() {
	for _, c := range w.found {
		notify(c)
	}
}

// notify wakes whoever waits on a channel of capacity one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits, and reports whether it was left alone.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ignoreStale passes over the refusal of a change whose work is no longer owed:
// the job was settled or stopped in the meantime.
func ignoreStale(err error) error {
	if errors.Is(err, jobs.ErrStale) {
		return nil
	}
	return err
}
