package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"appview/network"
	"appview/network/outcome"
	"appview/network/polite"
	"appview/store"
)

const (
	// resolveWidth is how many DIDs a job looks up at once in the directory…
	resolveWidth = 128
	// …and webWidth how many that are documents on hosts of their own. These can
	// take as long as they like to answer, so nothing else waits behind them.
	webWidth = 64
	// webDIDs is what such DIDs begin with. What sorts behind them names no method
	// that we know, and is looked up nowhere.
	webDIDs = "did:web:"
)

// unknownHost is the queue of repos whose host is not known yet.
const unknownHost = ""

// resolve looks up the hosts of found repos until there are no more.
func (w *worker) resolve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer w.plcResolved.Store(true)
		return w.resolveSpan(ctx, span{host: unknownHost, end: webDIDs}, resolveWidth, w.found[0])
	})
	g.Go(func() error {
		defer w.webResolved.Store(true)
		return w.resolveSpan(ctx, span{host: unknownHost, after: webDIDs}, webWidth, w.found[1])
	})
	return g.Wait()
}

func (w *worker) resolveSpan(ctx context.Context, s span, width int, found <-chan struct{}) error {
	for {
		// Asked before the walk: what is found during it is walked next time.
		listed := w.listed.Load()
		end, err := w.walk(ctx, s, width, w.lookUp)
		if err != nil {
			return err
		}
		var timer <-chan time.Time
		switch {
		case !end.next.IsZero():
			timer = time.After(max(end.next.Sub(w.b.now()), minPause))
		case listed:
			return nil
		}
		select {
		case <-timer:
		case <-found:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookUp finds out where one repo lives.
func (w *worker) lookUp(ctx context.Context, h hand) {
	if w.b.cfg.Store.Denied(h.DID, "") {
		w.settleWithout(ctx, h, h.Owed, outcome.ReasonDenied, false)
		return
	}
	if wait, over := w.directory.exhausted(w.b.now()); over && h.DID.Method() == "plc" {
		h.Detail = fmt.Sprintf("the directory has not answered since %s: %s", wait.Since.UTC().Format(time.RFC3339), wait.Answer)
		w.settleWithout(ctx, h, h.Owed, outcome.ReasonDIDLookup, false)
		return
	}
	if isWeb(h.DID) {
		w.silence.ask(webDIDs)
	}
	ident, err := w.lookup(ctx, h.DID)
	var failed *network.Error
	if isWeb(h.DID) && (err == nil || errors.As(err, &failed) && !failed.Reason.Retryable()) {
		w.healthy(webDIDs)
	}
	if err != nil {
		w.missed(ctx, h, h.Owed, err)
		return
	}
	w.rehost(ctx, h, string(ident.PDS))
}

// queueOf is whose silence it is when a repo is not given: its host's, or that of the
// hosts of documents.
func queueOf(h hand) string {
	if h.Host == unknownHost && isWeb(h.DID) {
		return webDIDs
	}
	return h.Host
}

// isWeb reports whether the DID's document is on a host of its own.
func isWeb(did syntax.DID) bool { return did > webDIDs }

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
	var (
		failed *network.Error
		parked *network.Parked
	)
	if errors.As(err, &parked) && h.Host != unknownHost && (parked.Why == polite.WhyRateLimited || parked.Why == polite.WhyPaced) {
		w.silence.excuse(h.Host, parked.Until)
	}
	switch {
	case errors.As(err, &parked) && !w.parks(h.Host, parked):
		w.sentOn(ctx, h, o, parked)
		return
	case !errors.As(err, &failed):
		h.done(err) // the queue is parked, or ctx has ended: not an attempt
		return
	}
	o.Attempts++
	o.LimitedAt = time.Time{}
	o.Reason, o.Detail = string(failed.Reason), detail(failed)
	w.silence.fail(queueOf(h), o.Detail)
	last := o.Attempts >= w.b.cfg.Attempts || queueOf(h) == webDIDs && w.webOver.Load()
	if failed.Reason.Class() == outcome.ClassFailed && failed.Reason.Retryable() && !last {
		w.postpone(ctx, h, o, w.b.now().Add(backoff(w.b.cfg.Retry, o.Attempts)))
		return
	}
	w.settleWithout(ctx, h, o, failed.Reason, failed.Inferred)
}

func (w *worker) postpone(ctx context.Context, h hand, o store.Owed, until time.Time) {
	o.NotBefore = until.UTC()
	w.give(h, w.b.cfg.Store.Postpone(ctx, w.seq, o, h.done))
}

// parks tells whether a whole queue has to wait: for its own host, for the
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
func (w *worker) sentOn(ctx context.Context, h hand, o store.Owed, p *network.Parked) {
	now := w.b.now()
	reason := outcome.ReasonRateLimited
	switch {
	case p.Host == w.b.cfg.Network.PLC():
		reason = outcome.ReasonDIDLookup
	case p.Why == polite.WhyDown:
		w.missed(ctx, h, o, &network.Error{Reason: outcome.ReasonConnect, Op: "follow", Host: p.Host, Err: errors.New("the host is down")})
		return
	}
	if !w.since(o.LimitedAt, now) {
		o.LimitedAt = now.UTC()
	}
	o.Reason, o.Detail = string(reason), detail(p)
	if now.Sub(o.LimitedAt) > maxLimited {
		w.settleWithout(ctx, h, o, reason, false)
		return
	}
	w.postpone(ctx, h, o, now.Add(min(max(p.Until.Sub(now), minPause), maxBackoff)))
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
