package backfill

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/semaphore"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// directory tells the failure of the PLC directory, which is everybody's, from that of
// one look-up. The first costs no repo an attempt: all wait for it, for hours. While it
// lasts, somebody is looked up now and then for whom the directory has answered before.
type directory struct {
	checking *semaphore.Weighted // of who finds out which it is

	mu       sync.Mutex
	answered time.Time  // when it was last asked a question that it answered
	known    syntax.DID // for whom
	failures int        // in a row, since then
	until    time.Time  // nothing is asked before
	answer   string     // what came instead of the last answer
}

// lookup is the network's Lookup. While the directory is away, it fails with a
// *network.Parked that names the directory.
func (b *Backfill) lookup(ctx context.Context, did syntax.DID) (network.Identity, error) {
	if did.Method() != "plc" {
		return b.cfg.Network.Lookup(ctx, did)
	}
	if err := b.tryDirectory(ctx, did); err != nil {
		return network.Identity{}, err
	}
	asked := b.now()
	ident, err := b.askDirectory(ctx, did)
	if failed := b.directoryFailed(err); failed != nil {
		return ident, b.blameDirectory(ctx, did, asked, failed)
	}
	return ident, err
}

// tryDirectory fails if the directory is away. If it was, it is tried.
func (b *Backfill) tryDirectory(ctx context.Context, did syntax.DID) error {
	if p := b.directoryParked(); p != nil {
		return p
	}
	if known, away := b.directoryKnows(did); known == "" || !away {
		return nil
	}
	if err := b.directory.checking.Acquire(ctx, 1); err != nil {
		return err
	}
	defer b.directory.checking.Release(1)
	if p := b.directoryParked(); p != nil {
		return p
	}
	known, away := b.directoryKnows(did)
	if known == "" || !away {
		return nil
	}
	_, err := b.checkDirectory(ctx, known)
	return err
}

// directoryKnows is somebody else for whom the directory has answered, if there is one,
// and whether it is away.
func (b *Backfill) directoryKnows(did syntax.DID) (known syntax.DID, away bool) {
	d := &b.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == did {
		return "", d.failures > 0
	}
	return d.known, d.failures > 0
}

// checkDirectory looks somebody up for whom the directory has answered before. It fails
// if the directory does not now.
func (b *Backfill) checkDirectory(ctx context.Context, known syntax.DID) (answered bool, err error) {
	_, err = b.askDirectory(ctx, known)
	var parked *network.Parked
	switch failed := b.directoryFailed(err); {
	case failed != nil:
		return false, b.parkDirectory(time.Time{}, read.Detail(failed))
	case errors.As(err, &parked) && parked.Host == b.cfg.Network.PLC():
		return false, b.parkDirectory(parked.Until, parked.Answer)
	case err == nil || errors.As(err, new(*network.Error)):
		return true, nil
	default:
		return false, err
	}
}

// parkDirectory gives the directory time: until it may be asked again, if it has said
// when, and more with each failure.
func (b *Backfill) parkDirectory(until time.Time, answer string) *network.Parked {
	d := &b.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	d.answer = cmp.Or(answer, d.answer)
	// The network remembers it over a restart.
	d.until = b.cfg.Network.SetAside(b.cfg.Network.PLC(), backoff(b.cfg.Retry, d.failures), d.answer)
	if until.After(d.until) {
		d.until = until
	}
	return &network.Parked{Host: b.cfg.Network.PLC(), Until: d.until, Why: polite.WhyDown, Answer: d.answer}
}

// askDirectory looks a DID up, and notes if the directory answers.
func (b *Backfill) askDirectory(ctx context.Context, did syntax.DID) (network.Identity, error) {
	asked := b.now()
	ident, err := b.cfg.Network.Lookup(ctx, did)
	var failed *network.Error
	if err == nil || errors.As(err, &failed) && b.directoryFailed(err) == nil {
		d := &b.directory
		d.mu.Lock()
		defer d.mu.Unlock()
		// An answer that comes late proves no more than that the directory was there when it was asked.
		if asked.After(d.answered) {
			d.answered = asked
		}
		d.known, d.failures, d.until = did, 0, time.Time{}
	}
	return ident, err
}

// directoryFailed is the error, if it is that of a directory that gave no document and
// did not say that there is none.
func (b *Backfill) directoryFailed(err error) *network.Error {
	var failed *network.Error
	if errors.As(err, &failed) && failed.Reason == outcome.ReasonDIDLookup && failed.Host == b.cfg.Network.PLC() && !errors.Is(err, network.ErrBadDocument) {
		return failed
	}
	return nil
}

// directoryParked is not nil while the directory is given time.
func (b *Backfill) directoryParked() *network.Parked {
	d := &b.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.until.After(b.now()) {
		return nil
	}
	return &network.Parked{Host: b.cfg.Network.PLC(), Until: d.until, Why: polite.WhyDown, Answer: d.answer}
}

// blameDirectory finds out whose failure that of a look-up is. It is the DID's own if the
// directory has answered just before or since, or does so now for another, and then the
// error is this one; else it is the directory's, which is left alone for a while.
func (b *Backfill) blameDirectory(ctx context.Context, did syntax.DID, asked time.Time, failed *network.Error) error {
	d := &b.directory
	if err := d.checking.Acquire(ctx, 1); err != nil {
		return err
	}
	defer d.checking.Release(1)
	d.mu.Lock()
	// An attempt more than this proof is worth comes later than it lasts.
	proved := d.answered.After(asked.Add(-b.cfg.Retry / 2))
	d.mu.Unlock()
	if proved {
		return failed
	}
	if p := b.directoryParked(); p != nil {
		return p
	}
	known, _ := b.directoryKnows(did)
	refused := failed.Status >= http.StatusBadRequest && failed.Status < http.StatusInternalServerError
	switch {
	case known == "" && refused: // who refuses one question may answer all others
		return failed
	case known == "":
		return b.parkDirectory(time.Time{}, read.Detail(failed))
	}
	if answered, err := b.checkDirectory(ctx, known); !answered {
		return err
	}
	return failed
}

// lookup looks a DID up for the job, and notes if that has to wait for the directory.
func (w *worker) lookup(ctx context.Context, did syntax.DID) (network.Identity, error) {
	asked := w.b.now()
	ident, err := w.b.lookup(ctx, did)
	var parked *network.Parked
	switch {
	case did.Method() != "plc":
	case err == nil || errors.As(err, new(*network.Error)):
		w.directory.end(ctx, w, asked)
	case !errors.As(err, &parked):
	case parked.Why == polite.WhyNetwork:
		w.directory.reset(w.b.now())
	case parked.Host == w.b.cfg.Network.PLC() && parked.Why != polite.WhyPaced:
		w.directory.begin(ctx, w, parked.Host, parked.Until, parked.Answer)
	}
	return ident, err
}
