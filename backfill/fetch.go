package backfill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"appview/network"
	"appview/store"
)

const (
	// maxProbes is how often in a row a job finds a host down before it gives up
	// what it still owes there.
	maxProbes = 5
	// maxLimited is how long a host may answer nothing but "slow down", and
	// maxPark how long it may ask to be left alone at a time, before a job gives
	// up what it still owes there.
	maxLimited = 6 * time.Hour
	maxPark    = time.Hour
)

// queues are the hosts that a job may owe something at.
type queues struct {
	mu      sync.Mutex
	hosts   map[string]*queue
	line    []string      // hosts to be swept, first come first served
	active  int           // sweeps under way
	changed chan struct{} // something was added to the line, or a sweep ended
}

// queue is one host's queue, as far as it is known without reading it.
type queue struct {
	inLine, active bool
	again          bool      // something was put into the queue during the sweep
	due            time.Time // when to come back; zero: not before something is put in
}

// ready puts a host into the line: there is something in its queue.
func (q *queues) ready(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hosts == nil {
		q.hosts = map[string]*queue{}
	}
	h := q.hosts[host]
	if h == nil {
		h = &queue{}
		q.hosts[host] = h
	}
	switch {
	case h.active:
		h.again = true
	case !h.inLine && h.due.IsZero():
		h.inLine = true
		q.line = append(q.line, host)
		notify(q.changed)
	}
}

// take returns the next host to sweep, after putting those that are due into the
// line, or else the time to look again. idle says that no sweep is under way and
// none is to come.
func (q *queues) take(now time.Time, limit int) (host string, next time.Time, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, h := range q.hosts {
		switch {
		case h.due.IsZero():
		case !h.due.After(now):
			h.due, h.inLine = time.Time{}, true
			q.line = append(q.line, name)
		case next.IsZero() || h.due.Before(next):
			next = h.due
		}
	}
	if len(q.line) > 0 && q.active < limit {
		host, q.line = q.line[0], q.line[1:]
		h := q.hosts[host]
		h.inLine, h.active = false, true
		q.active++
		return host, next, false
	}
	return "", next, q.active == 0 && len(q.line) == 0 && next.IsZero()
}

// end notes that a sweep has ended, and when to come back.
func (q *queues) end(host string, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[host]
	h.active = false
	q.active--
	switch {
	case !next.IsZero():
		h.due = next
	case h.again:
		h.inLine = true
		q.line = append(q.line, host)
	default:
		delete(q.hosts, host)
	}
	h.again = false
	notify(q.changed)
}

// parked tells whether every host that is owed something is to be left alone.
func (q *queues) parked() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.hosts) > 0 && q.active == 0 && len(q.line) == 0
}

// fetch sweeps the queues of hosts until the job owes nothing any more.
func (w *worker) fetch(ctx context.Context) error {
	hosts, err := w.b.cfg.Store.OwedHosts(ctx, w.seq)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		w.queues.ready(h)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			host, next, idle := w.queues.take(w.b.cfg.Now(), w.b.cfg.MaxHosts)
			if host != "" {
				g.Go(func() error { return w.sweep(ctx, host) })
				continue
			}
			if idle && w.listed.Load() {
				job, err := w.b.cfg.Store.Job(ctx, w.id)
				if err != nil || job.Done() {
					return err
				}
			}
			var timer <-chan time.Time
			if !next.IsZero() {
				timer = time.After(max(next.Sub(w.b.cfg.Now()), minPause))
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

// sweep reads the repos of one host that are due.
func (w *worker) sweep(ctx context.Context, host string) error {
	if err := w.b.hosts.Acquire(ctx, 1); err != nil {
		return err
	}
	defer w.b.hosts.Release(1)
	next, moved, err := w.walk(ctx, host, w.b.cfg.ReposPerHost, w.readRepo)
	if err != nil {
		return err
	}
	if next, err = w.judgeHost(ctx, host, next, moved > 0); err != nil {
		return err
	}
	w.queues.end(host, next)
	return nil
}

// judgeHost gives up a host that stays down, or that never stops asking us to
// slow down. next is when the sweep wants to come back, moved whether it got
// anything done.
func (w *worker) judgeHost(ctx context.Context, host string, next time.Time, moved bool) (time.Time, error) {
	now := w.b.cfg.Now()
	known, err := w.b.cfg.Store.Host(ctx, w.seq, host)
	if err != nil {
		return next, err
	}
	state := w.b.cfg.Network.HostState(network.Host(host))
	until, parked := w.b.cfg.Network.ParkedUntil(network.Host(host))
	note := store.HostWork{}
	var verdict *store.Verdict
	switch {
	case w.b.cfg.Network.Outage():
		note = known // our own network is gone: that says nothing about the host
	case state.Down:
		note.Probes, note.NextProbe = known.Probes, state.NextProbe.UTC()
		if !note.NextProbe.Equal(known.NextProbe) {
			note.Probes++ // a probe has failed since
		}
		if state.LastErr != nil {
			note.Error = detail(state.LastErr)
		}
		if note.Probes > maxProbes {
			verdict = w.verdict(network.ReasonHostDown, note.Error)
		}
	case parked:
		if note.LimitedAt = known.LimitedAt; note.LimitedAt.IsZero() || moved {
			note.LimitedAt = now.UTC().Truncate(time.Second)
		}
		if until.Sub(now) > maxPark || now.Sub(note.LimitedAt) > maxLimited {
			verdict = w.verdict(network.ReasonRateLimited, fmt.Sprintf("asked us to wait until %s", until.UTC().Format(time.RFC3339)))
		}
	}
	if verdict != nil {
		return time.Time{}, w.giveUp(ctx, host, *verdict)
	}
	if note.Probes != known.Probes || note.Error != known.Error || !note.LimitedAt.Equal(known.LimitedAt) {
		if err := w.b.cfg.Store.PutHost(ctx, w.seq, host, note); ignoreStale(err) != nil {
			return next, err
		}
	}
	return next, nil
}

func (w *worker) verdict(r network.Reason, text string) *store.Verdict {
	return &store.Verdict{Class: string(r.Class()), Reason: string(r), Detail: text}
}

// giveUp settles everything that the job still owes at a host.
func (w *worker) giveUp(ctx context.Context, host string, v store.Verdict) error {
	total := 0
	for {
		n, err := w.b.cfg.Store.SettleHost(ctx, w.seq, host, v)
		if err != nil {
			if errors.Is(err, store.ErrStale) {
				return nil
			}
			return err
		}
		total += n
		if n == 0 {
			w.log.WarnContext(ctx, "host given up", "host", host, "reason", v.Reason, "repos", total, "err", v.Detail)
			return nil
		}
	}
}
