package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/store/index"
	"appview/store/jobs"
)

// endAttempt decides what becomes of a repo that could not be read.
func (w *worker) endAttempt(ctx context.Context, t task, got read.Result) {
	var (
		parked *network.Parked
		moved  *read.MovedError
		gone   *read.GoneError
	)
	switch {
	case errors.As(got.Err, &moved) && t.Moved:
		w.missed(ctx, t, got.Owed, &network.Error{
			Reason: outcome.ReasonIncomplete, Op: "read repo", Host: network.Host(t.Host), Err: fmt.Errorf("%w for the second time", moved),
		})
	case errors.As(got.Err, &moved):
		w.log.DebugContext(ctx, "repo has moved", "did", t.DID, "host", t.Host, "to", moved.To.PDS)
		w.rehost(ctx, t, moved.To, moved.LookedUp)
	case errors.As(got.Err, &gone):
		w.settleGone(ctx, t, got.Owed, gone.Reason, gone.Inferred, gone.Shown)
	case errors.As(got.Err, &parked) && w.parks(t.Host, parked) && got.Owed.Proofs > t.Proofs:
		o := t.Owed
		o.Proofs = got.Owed.Proofs
		w.postpone(ctx, t, o, parked.Until) // no attempt, and yet something to be counted
	default:
		w.missed(ctx, t, got.Owed, got.Err)
	}
}

// settleWithout settles a repo that could not be read. inferred says that the reason is
// nobody's word.
func (w *worker) settleWithout(ctx context.Context, t task, o jobs.Owed, reason outcome.Reason, inferred bool) {
	w.settleGone(ctx, t, o, reason, inferred, jobs.ShortPages{})
}

// settleGone is settleWithout. shown is what the host has shown of itself.
func (w *worker) settleGone(ctx context.Context, t task, o jobs.Owed, reason outcome.Reason, inferred bool, shown jobs.ShortPages) {
	verdict := jobs.Verdict{Class: string(reason.Class()), Reason: string(reason), Detail: o.Detail}
	w.log.DebugContext(ctx, "repo not read", "did", t.DID, "host", t.Host, "reason", reason, "attempt", o.Attempts, "err", o.Detail)
	s := jobs.Settlement{
		DID: t.DID, Reading: index.Reading{Host: t.Host}, Attempts: o.Attempts, Verdict: verdict,
	}
	if reason.Class() == outcome.ClassUnavailable {
		s.Account, s.Inferred = string(reason), inferred
		s.Purge = reason == outcome.ReasonDeleted || reason == outcome.ReasonTombstoned || reason == outcome.ReasonDenied
	}
	s.Short = shown
	w.settle(ctx, t, s, 0, func() {})
}

// settle hands a settlement over. after is called when it is committed, or will
// not be.
func (w *worker) settle(ctx context.Context, t task, s jobs.Settlement, records int, after func()) {
	err := w.b.cfg.Store.Work.Settle(ctx, w.seq, s, func(err error) {
		after()
		t.done(err)
		if s.Short.More || errors.Is(err, index.ErrNotTheEnd) {
			notify(w.doubts) // this job has found it out, or another
		}
		if err != nil {
			return
		}
		w.rate.add(w.b.now(), records)
		if t.Host == unknownHost {
			notify(w.queues.changed) // it may have been the last
		}
	})
	if err != nil {
		after()
	}
	w.giveBack(t, err)
}

// giveBack gives the task back when its change could not even be queued.
func (w *worker) giveBack(t task, err error) {
	if err != nil {
		t.done(err)
	}
}

// missed ends an attempt that failed: the repo is tried again later, or settled
// with the reason.
func (w *worker) missed(ctx context.Context, t task, o jobs.Owed, err error) {
	var (
		failed *network.Error
		parked *network.Parked
	)
	if errors.As(err, &parked) && t.Host != unknownHost && (parked.Why == polite.WhyRateLimited || parked.Why == polite.WhyPaced) {
		w.silence.excuse(t.Host, parked.Until)
	}
	switch {
	case errors.As(err, &parked) && !w.parks(t.Host, parked):
		w.sentOn(ctx, t, o, parked)
		return
	case !errors.As(err, &failed):
		t.done(err) // the queue is parked, or ctx has ended: not an attempt
		return
	}
	o.Attempts++
	o.LimitedAt = time.Time{}
	o.Reason, o.Detail = string(failed.Reason), read.Detail(failed)
	w.silence.fail(queueOf(t), o.Detail)
	last := o.Attempts >= w.b.cfg.Attempts || queueOf(t) == webDIDs && w.webOver.Load()
	if failed.Reason.Class() == outcome.ClassFailed && failed.Reason.Retryable() && !last {
		w.postpone(ctx, t, o, w.b.now().Add(backoff(w.b.cfg.Retry, o.Attempts)))
		return
	}
	w.settleWithout(ctx, t, o, failed.Reason, failed.Inferred)
}

func (w *worker) postpone(ctx context.Context, t task, o jobs.Owed, until time.Time) {
	o.NotBefore = until.UTC()
	w.giveBack(t, w.b.cfg.Store.Work.Postpone(ctx, w.seq, o, t.done))
}

// parks reports whether a whole queue has to wait: for its own host, for the
// directory when hosts are looked up, or for our own network.
func (w *worker) parks(host string, p *network.Parked) bool {
	own := network.Host(host)
	if host == unknownHost {
		own = w.b.cfg.Network.PLC()
	}
	return p.Host == own || p.Why == polite.WhyNetwork
}

// sentOn postpones one repo whose reading led to some other host than that of its
// queue, by a redirect or a look-up, and which has to be left alone. A host that
// is down costs an attempt; one that asks us to slow down costs none, and neither
// does the directory, which is down for all repos alike, but not for ever.
func (w *worker) sentOn(ctx context.Context, t task, o jobs.Owed, p *network.Parked) {
	now := w.b.now()
	reason := outcome.ReasonRateLimited
	switch {
	case p.Host == w.b.cfg.Network.PLC():
		reason = outcome.ReasonDIDLookup
	case p.Why == polite.WhyDown:
		w.missed(ctx, t, o, &network.Error{Reason: outcome.ReasonConnect, Op: "follow", Host: p.Host, Err: errors.New("the host is down")})
		return
	}
	if !w.since(o.LimitedAt, now) {
		o.LimitedAt = now.UTC()
	}
	o.Reason, o.Detail = string(reason), read.Detail(p)
	if now.Sub(o.LimitedAt) > maxLimited {
		w.settleWithout(ctx, t, o, reason, false)
		return
	}
	w.postpone(ctx, t, o, now.Add(min(max(p.Until.Sub(now), minPause), maxBackoff)))
}
