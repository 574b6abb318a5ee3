package backfill

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/semaphore"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store/jobs"
)

const (
	// checkWidth is how many documents are looked at once before hosts are given up:
	// those in the directory, and as many on hosts of their own.
	checkWidth = 32
	// checkSample is how many repos of a host have their documents looked at where there
	// are too many for all.
	checkSample = 200
	// webShare is the share of a silence that documents on hosts of their own get:
	// such a host may be the one that is silent.
	webShare = 9
	// queuePage is how many rows of a queue are read at once to choose from.
	queuePage = 1000
)

// errSilent is why the sweep of a host ends that is given up.
var errSilent = errors.New("the host is given up")

// checks bound the look-ups before hosts are given up.
type checks struct{ plc, web *semaphore.Weighted }

// handle does what a silence asks for.
func (w *worker) handle(ctx context.Context, c *checks, r ripeHost) error {
	var err error
	switch {
	case r.giveUp == nil:
		err = w.checkHost(ctx, c, r.host)
	case r.host == webDIDs:
		err = w.endWeb(ctx, *r.giveUp)
	default:
		err = w.dismiss(ctx, r.host, *r.giveUp)
	}
	w.silence.mu.Lock()
	defer w.silence.mu.Unlock()
	h := w.silence.hosts[r.host] // which stays while it is busy
	h.busy = false
	switch {
	case r.giveUp == nil:
		h.checked = w.b.now()
		notify(w.judged)
	case r.host != webDIDs: // there, an attempt that has just failed may not be noted yet
		delete(w.silence.hosts, r.host)
	}
	return err
}

// dismiss gives up what the job owes at a host. What comes into its queue from here on
// is read.
func (w *worker) dismiss(ctx context.Context, host string, v jobs.Verdict) error {
	select {
	case <-w.queues.close(host):
	case <-ctx.Done():
		return ctx.Err()
	}
	defer w.queues.open(host)
	return w.giveUp(ctx, host, v)
}

// giveUp settles everything that the job still owes at a host.
func (w *worker) giveUp(ctx context.Context, host string, v jobs.Verdict) error {
	total := 0
	for {
		n, err := w.b.cfg.Store.Work.SettleHost(ctx, w.seq, host, v)
		if err != nil {
			return ignoreStale(err)
		}
		total += n
		if n == 0 {
			w.log.WarnContext(ctx, "host given up", "host", host, "reason", v.Reason, "repos", total, "err", v.Detail)
			return nil
		}
	}
}

// endWeb gives up the look-ups on hosts of their own that have failed before. From here
// on each such look-up is the last.
func (w *worker) endWeb(ctx context.Context, v jobs.Verdict) error {
	w.webOver.Store(true)
	return w.scanChosen(ctx, keyRange{host: unknownHost, after: webDIDs}, func(o jobs.Owed) bool { return o.Attempts > 0 },
		func(ctx context.Context, t task) {
			t.Detail = v.Detail
			w.settleWithout(ctx, t, t.Owed, outcome.Reason(v.Reason), false)
		})
}

// scanChosen has do work on the chosen rows of a queue, whether they are due or not.
func (w *worker) scanChosen(ctx context.Context, keys keyRange, chosen func(jobs.Owed) bool, do func(context.Context, task)) error {
	s := scan{w: w, keys: keys, width: checkWidth, do: do, until: w.b.now().Add(maxLimited), chosen: chosen}
	_, err := s.run(ctx)
	return err
}

// checkHost looks at the DID documents of the repos that are owed at a host, before
// these are given up: who has moved is read at his new host. It looks at all of them,
// if that fits into a silence; else at some by chance, and at the others only if one of
// these has moved.
func (w *worker) checkHost(ctx context.Context, c *checks, host string) error {
	timed, cancel := context.WithTimeout(ctx, maxLimited) // the directory may be away
	defer cancel()
	sample, all, err := w.sampleQueue(timed, host)
	if err != nil {
		return err
	}
	moved, err := w.checkRepos(timed, c, host, func(o jobs.Owed) bool { return all || sample[o.DID] })
	if err == nil && moved && !all {
		_, err = w.checkRepos(timed, c, host, func(o jobs.Owed) bool { return !sample[o.DID] })
	}
	if timed.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// sampleQueue chooses some repos of a host's queue by chance, or tells that there is
// time for all.
func (w *worker) sampleQueue(ctx context.Context, host string) (sample map[syntax.DID]bool, all bool, err error) {
	var chosen []syntax.DID
	seen, after := 0, syntax.DID("")
	for more := true; more; {
		rows, err := w.b.cfg.Store.Work.Owed(ctx, w.seq, host, after, queuePage)
		if err != nil {
			return nil, false, err
		}
		for _, row := range rows {
			seen, after = seen+1, row.DID
			if len(chosen) < checkSample {
				chosen = append(chosen, row.DID)
			} else if i := rand.IntN(seen); i < checkSample {
				chosen[i] = row.DID
			}
		}
		more = len(rows) == queuePage
	}
	sample = make(map[syntax.DID]bool, len(chosen))
	for _, did := range chosen {
		sample[did] = true
	}
	return sample, w.silence.spend(seen), nil
}

// checkRepos looks at the documents of the chosen repos of a host: first those in the
// directory, then for a bounded time those on hosts of their own. It reports whether a
// repo has moved.
func (w *worker) checkRepos(ctx context.Context, c *checks, host string, chosen func(jobs.Owed) bool) (bool, error) {
	var moved atomic.Bool
	if err := w.scanChosen(ctx, keyRange{host: host, end: webDIDs}, chosen, w.check(c.plc, &moved)); err != nil {
		return false, err
	}
	timed, cancel := context.WithTimeout(ctx, w.b.cfg.Silence/webShare)
	defer cancel()
	err := w.scanChosen(timed, keyRange{host: host, after: webDIDs}, chosen, w.check(c.web, &moved))
	if timed.Err() != nil && ctx.Err() == nil {
		err = nil // they have had their time
	}
	return moved.Load(), err
}

// check looks at the document of one repo. A repo that has moved goes into the queue of
// its new host, once in a job; one that has none any more is settled. All others stay.
func (w *worker) check(slots *semaphore.Weighted, moved *atomic.Bool) func(context.Context, task) {
	return func(ctx context.Context, t task) {
		if err := slots.Acquire(ctx, 1); err != nil {
			t.done(err)
			return
		}
		ident, asked, err := w.lookUpPatiently(ctx, t.DID)
		slots.Release(1)
		var failed *network.Error
		switch {
		case errors.As(err, &failed) && !failed.Reason.Retryable():
			t.Detail = read.Detail(failed)
			w.settleWithout(ctx, t, t.Owed, failed.Reason, failed.Inferred)
		case err == nil && string(ident.PDS) != t.Host && !t.Moved:
			moved.Store(true)
			w.log.DebugContext(ctx, "repo has moved", "did", t.DID, "host", t.Host, "to", ident.PDS)
			w.rehost(ctx, t, ident, asked)
		default:
			t.done(errLater)
		}
	}
}

// lookUpPatiently looks an identity up, and waits where the directory, or our own
// network, is to be waited for. It returns when the look-up that did it began.
func (w *worker) lookUpPatiently(ctx context.Context, did syntax.DID) (network.Identity, time.Time, error) {
	for {
		asked := w.b.now()
		ident, err := w.lookup(ctx, did)
		var parked *network.Parked
		if !errors.As(err, &parked) || !w.parks(unknownHost, parked) {
			return ident, asked, err
		}
		if !sleep(ctx, max(parked.Until.Sub(w.b.now()), minPause)) {
			return ident, asked, ctx.Err()
		}
	}
}
