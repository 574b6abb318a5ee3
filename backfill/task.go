package backfill

import (
	"context"

	"appview/internal/network/outcome"
	"appview/internal/network/transport"
	"appview/store/jobs"
)

// task is a repo that a scan has taken out of a queue.
type task struct {
	jobs.Owed
	// done gives the repo back after the commit of what became of it, or with
	// the reason why nothing became of it.
	done func(error)
	// progressed notes that some of the repo is committed, though not all.
	progressed func()
}

// readTask claims a repo, has it read, and hands its settlement to the store. It reports
// whether the host gave the repo.
func (w *worker) readTask(ctx context.Context, t task) (given bool) {
	if w.b.cfg.Store.Index.Denied(t.DID, t.Host) {
		w.settleWithout(ctx, t, t.Owed, outcome.ReasonDenied, false)
		return false
	}
	if !w.b.claims.take(t.DID) {
		w.silence.excuse(t.Host, w.b.now().Add(2*claimedPause))
		t.done(errLater)
		return false
	}
	defer w.b.claims.release(t.DID)
	w.silence.ask(t.Host)
	got := w.reader.Read(transport.WithProgress(ctx, func() { w.healthy(t.Host) }), t.Owed)
	if got.Steps > 0 {
		t.progressed()
	}
	if got.Answered {
		w.healthy(t.Host)
	}
	if got.Err != nil {
		w.endAttempt(ctx, t, got)
		return false
	}
	w.settle(ctx, t, got.Settlement, got.Records, got.Release)
	return true
}
