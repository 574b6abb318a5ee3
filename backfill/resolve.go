package backfill

import (
	"context"
	"errors"
	"strings"
	"time"

	"appview/network"
	"appview/store"
)

// resolveWidth is how many DIDs a job looks up at once.
const resolveWidth = 32

// unknownHost is the queue of repos whose host is not known yet.
const unknownHost = ""

// resolve looks up the hosts of found repos until there are no more.
func (w *worker) resolve(ctx context.Context) error {
	for {
		// Asked before the walk: what is found during it is walked next time.
		listed := w.listed.Load()
		next, _, err := w.walk(ctx, unknownHost, resolveWidth, w.lookUp)
		if err != nil {
			return err
		}
		var timer <-chan time.Time
		if next.IsZero() {
			if listed {
				return nil
			}
		} else {
			timer = time.After(max(next.Sub(w.b.cfg.Now()), minPause))
		}
		select {
		case <-timer:
		case <-w.found:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookUp finds out where one repo lives.
func (w *worker) lookUp(ctx context.Context, h hand) {
	ident, err := w.b.cfg.Network.Lookup(ctx, h.DID)
	if err != nil {
		w.missed(ctx, h, h.Owed, err)
		return
	}
	w.rehost(ctx, h, string(ident.PDS))
}

// rehost puts a repo into the queue of the host where it lives.
func (w *worker) rehost(ctx context.Context, h hand, host string) {
	w.give(h, w.b.cfg.Store.Rehost(ctx, w.seq, h.DID, h.Host, host, func(err error) {
		h.done(err)
		if err == nil {
			w.queues.ready(host)
		}
	}))
}

// give gives the repo back when its change could not even be queued.
func (w *worker) give(h hand, err error) {
	if err != nil {
		h.done(err)
	}
}

// missed ends an attempt that failed: the repo is tried again later, or settled
// with the reason.
func (w *worker) missed(ctx context.Context, h hand, o store.Owed, err error) {
	var failed *network.Error
	if !errors.As(err, &failed) {
		h.done(err) // parked, or the end of ctx: not an attempt
		return
	}
	o.Attempts++
	o.Reason, o.Detail = string(failed.Reason), detail(failed)
	if failed.Reason.Class() == network.ClassFailed && failed.Reason.Retryable() && o.Attempts < w.b.cfg.Attempts {
		o.NotBefore = w.b.cfg.Now().Add(backoff(w.b.cfg.Retry, o.Attempts))
		w.give(h, w.b.cfg.Store.Postpone(ctx, w.seq, o, h.done))
		return
	}
	w.settleWithout(ctx, h, o, failed.Reason)
}

// maxDetail bounds what a row says about a failure.
const maxDetail = 300

func detail(err error) string {
	s := err.Error()
	if len(s) > maxDetail {
		s = s[:maxDetail] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
