package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store/jobs"
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
		return w.resolveRange(ctx, keyRange{host: unknownHost, end: webDIDs}, resolveWidth, w.found[0])
	})
	g.Go(func() error {
		defer w.webResolved.Store(true)
		return w.resolveRange(ctx, keyRange{host: unknownHost, after: webDIDs}, webWidth, w.found[1])
	})
	return g.Wait()
}

func (w *worker) resolveRange(ctx context.Context, keys keyRange, width int, found <-chan struct{}) error {
	for {
		// Asked before the scan: what is found later may be scanned next time only.
		listed := w.listed.Load()
		s := scan{w: w, keys: keys, width: width, do: w.lookUp, added: found}
		result, err := s.run(ctx)
		if err != nil {
			return err
		}
		var timer <-chan time.Time
		switch {
		case !result.next.IsZero():
			timer = time.After(max(result.next.Sub(w.b.now()), minPause))
		case listed:
			return nil
		case w.listed.Load():
			continue // the scan may have taken the signal
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
func (w *worker) lookUp(ctx context.Context, t task) {
	if w.b.cfg.Store.Index.Denied(t.DID, "") {
		w.settleWithout(ctx, t, t.Owed, outcome.ReasonDenied, false)
		return
	}
	if wait, over := w.directory.exhausted(w.b.now()); over && t.DID.Method() == "plc" {
		t.Detail = fmt.Sprintf("the directory has not answered since %s: %s", wait.Since.UTC().Format(time.RFC3339), wait.Answer)
		w.settleWithout(ctx, t, t.Owed, outcome.ReasonDIDLookup, false)
		return
	}
	if isWeb(t.DID) {
		w.silence.ask(webDIDs)
	}
	asked := w.b.now()
	ident, err := w.lookup(ctx, t.DID)
	var failed *network.Error
	if isWeb(t.DID) && (err == nil || errors.As(err, &failed) && !failed.Reason.Retryable()) {
		w.healthy(webDIDs)
	}
	if err != nil {
		w.missed(ctx, t, t.Owed, err)
		return
	}
	w.rehost(ctx, t, ident, asked)
}

// queueOf is whose silence it is when a repo is not given: its host's, or that of the
// hosts of documents.
func queueOf(t task) string {
	if t.Host == unknownHost && isWeb(t.DID) {
		return webDIDs
	}
	return t.Host
}

// isWeb reports whether the DID's document is on a host of its own.
func isWeb(did syntax.DID) bool { return did > webDIDs }

// rehost puts a repo into the queue of the host where it lives, as a look-up has found it
// that began at asked.
func (w *worker) rehost(ctx context.Context, t task, ident network.Identity, asked time.Time) {
	host := string(ident.PDS)
	// In whole seconds, as the row has it: never later than it was.
	home := jobs.Home{Host: host, Key: ident.KeyText(), LookedUp: asked.UTC().Truncate(time.Second)}
	w.giveBack(t, w.b.cfg.Store.Work.Place(ctx, w.seq, t.DID, t.Host, home, func(err error) {
		t.done(err)
		if err == nil {
			w.queues.ready(host)
		}
	}))
}
