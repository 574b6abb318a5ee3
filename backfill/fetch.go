package backfill

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store/jobs"
)

const (
	// maxProbes is how often in a row a job finds a host down before it gives up
	// what it still owes there.
	maxProbes = 5
	// maxLimited is how long a host may answer nothing but "slow down" before a
	// job gives up what it still owes there.
	maxLimited = 6 * time.Hour
)

// fetch sweeps the queues of hosts until the job owes nothing any more.
func (w *worker) fetch(ctx context.Context) error {
	hosts, err := w.b.cfg.Store.Work.OwedHosts(ctx, w.seq)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		w.queues.ready(h)
	}
	notify(w.doubts) // an earlier process may have left some
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	g.Go(func() error { return w.reopen(ctx) })
	g.Go(func() error { return w.watchSilence(ctx) })
	g.Go(func() error {
		defer stop()
		for {
			host, next, idle := w.queues.take(w.b.now(), w.b.cfg.MaxHosts)
			if host != "" {
				g.Go(func() error { return w.sweep(ctx, host) })
				continue
			}
			if idle && w.listed.Load() {
				if done, err := w.done(ctx); done || err != nil {
					return err
				}
			}
			var timer <-chan time.Time
			if !next.IsZero() {
				timer = time.After(max(next.Sub(w.b.now()), minPause))
			}
			select {
			case <-timer:
			case <-w.queues.changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// done reports whether the job owes nothing any more.
func (w *worker) done(ctx context.Context) (bool, error) {
	job, err := w.b.cfg.Store.Jobs.Job(ctx, w.id)
	if err != nil || !job.Done() {
		return false, err
	}
	doubted, err := w.b.cfg.Store.Work.Doubted(ctx, w.seq)
	if len(doubted) > 0 {
		notify(w.doubts)
	}
	return len(doubted) == 0, err
}

// sweep reads the repos of one host that are due, until others are to have their turn,
// or the host is given up.
func (w *worker) sweep(ctx context.Context, host string) error {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.queues.sweep(host, cancel)
	result, err := w.sweepHost(own, host)
	if errors.Is(context.Cause(own), errSilent) {
		result, err = scanResult{}, nil
	}
	if err == nil {
		w.queues.end(host, result)
	}
	return err
}

// sweepHost reads the repos of one host that are due. Jobs that name their DIDs do
// not wait for room among those that cover the network.
func (w *worker) sweepHost(ctx context.Context, host string) (scanResult, error) {
	if !w.named {
		if err := w.b.hosts.Acquire(ctx, 1); err != nil {
			return scanResult{}, err
		}
	}
	slot := w.newSlot(host)
	defer slot.end()
	var gave atomic.Bool
	scan := scan{
		w: w, keys: keyRange{host: host}, width: w.b.cfg.ReposPerHost, until: w.b.now().Add(w.b.cfg.Turn),
		added: w.queues.added(host), slot: slot,
		do: func(ctx context.Context, t task) {
			if w.readTask(ctx, t) {
				gave.Store(true)
			}
			slot.reads.Add(1)
		},
	}
	result, err := scan.run(ctx)
	slot.end()
	if err != nil {
		return result, err
	}
	return result, w.judgeHost(ctx, host, result.progressed, gave.Load())
}

// judgeHost has a host given up that stays down, or that never stops asking us to slow
// down. progressed says that the sweep got something done, gave that the host gave a repo: then
// it is not down, whatever it never answers.
func (w *worker) judgeHost(ctx context.Context, host string, progressed, gave bool) error {
	now := w.b.now()
	known, err := w.b.cfg.Store.Work.Host(ctx, w.seq, host)
	if err != nil {
		return err
	}
	state := w.b.cfg.Network.HostState(network.Host(host))
	until, parked := w.b.cfg.Network.ParkedUntil(network.Host(host))
	note := jobs.Behaviour{}
	var verdict *jobs.Verdict
	switch {
	case w.b.cfg.Network.Outage():
		note = known.Behaviour // our own network is gone: that says nothing about the host
	case state.Down:
		note.Probes, note.NextProbe = known.Probes, state.NextProbe.UTC()
		switch {
		case gave:
			note.Probes = 0
		case !note.NextProbe.Equal(known.NextProbe):
			note.Probes++ // a probe has failed since
		}
		if state.LastErr != nil {
			note.Error = read.Detail(state.LastErr)
		}
		if note.Probes > maxProbes {
			verdict = w.verdict(outcome.ReasonHostDown, note.Error)
		}
	case parked && !state.AskedFor.IsZero():
		// Longer than we ever wait at once: that is a refusal.
		verdict = w.verdict(outcome.ReasonRateLimited, "asked us to wait until "+state.AskedFor.UTC().Format(time.RFC3339))
	case parked:
		note.LimitedAt = known.LimitedAt
		if !w.since(note.LimitedAt, now) || progressed {
			note.LimitedAt = now.UTC().Truncate(time.Second)
		}
		if now.Sub(note.LimitedAt) > maxLimited {
			verdict = w.verdict(outcome.ReasonRateLimited, "asked us to wait until "+until.UTC().Format(time.RFC3339))
		}
	}
	if verdict != nil {
		w.silence.judge(host, *verdict)
		notify(w.judged)
	}
	if note.Probes != known.Probes || note.Error != known.Error || !note.LimitedAt.Equal(known.LimitedAt) {
		return ignoreStale(w.b.cfg.Store.Work.PutHost(ctx, w.seq, host, note))
	}
	return nil
}

func (w *worker) verdict(r outcome.Reason, text string) *jobs.Verdict {
	return &jobs.Verdict{Class: string(r.Class()), Reason: string(r), Detail: text}
}
