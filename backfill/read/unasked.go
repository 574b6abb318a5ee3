package read

import (
	"context"
	"errors"
	"slices"
	"time"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store"
)

// A host gives the repos of active accounts only, by the protocol: a repo that is given
// whole needs no question for its status, since its commit has the rev. And the look-up that
// brought the repo into the queue has its key. So it costs one request and one look-up. In
// doubt more are made: what is assumed here is asked for where anything speaks against it.

// MaxLookUpAge is how old a look-up may be that is not made again before a repo is read
// whole. In the queue of a large host repos wait for hours.
const MaxLookUpAge = 10 * time.Minute

// mayAssumeActive reports whether the repo is to be read whole without a question for its
// status: nothing says that the account is not active, and of its host nothing was assumed
// that was wrong. Now and then it is asked for all the same.
func (r *reading) mayAssumeActive(ctx context.Context) (bool, error) {
	if !r.wantsWhole() || r.owed.Position != nil || r.owed.Probe || r.cfg.Follow(r.owed.DID) {
		return false, nil
	}
	repo, err := r.cfg.Store.Repo(ctx, r.owed.DID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return false, err
	case !repo.Active():
		return false, nil
	default:
		r.known = &repo
	}
	distrusted, err := r.cfg.Store.Distrusted(ctx, r.owed.Host)
	return !distrusted, err
}

// wantsWhole reports whether repos are read whole for the job's targets.
func (r *reading) wantsWhole() bool {
	return len(r.cfg.Targets) == 0 || len(r.cfg.Targets) > MaxListed
}

// queuedIdentity is the identity as the queue has it, if nothing speaks for looking it up
// again: an earlier failure, its age, or that the index has read the repo at another host.
func (r *reading) queuedIdentity() (network.Identity, bool) {
	elsewhere := r.known != nil && r.known.Floor != "" && r.known.Host != r.owed.Host
	if r.owed.Attempts > 0 || elsewhere || !r.cfg.Fresh(r.owed.LookedUp) {
		return network.Identity{}, false
	}
	return network.IdentityOf(r.owed.DID, r.host, r.owed.Key)
}

// readUnasked reads the repo whole without a question for its status. Where the host does
// not give it, and does not say either what the account is, nothing is read, and no error:
// then its status is asked for.
func (r *reading) readUnasked(ctx context.Context) error {
	ident, queued := r.queuedIdentity()
	r.ident = ident
	if !queued {
		if err := r.confirmHost(ctx); err != nil {
			return err
		}
	}
	r.setPass(pass{})
	repo, err := r.cfg.Network.Repo(ctx, r.host, r.ident)
	r.identityCurrent = false
	if failed, ok := errors.AsType[*network.Error](err); ok && queued && failed.Reason == outcome.ReasonBadSignature {
		repo, err = r.fetchByNewKey(ctx, err)
	}
	if err != nil {
		return r.refuseUnasked(ctx, err)
	}
	defer repo.Close()
	if queued && repo.From != r.host {
		// Whoever sends us on may have lost the account.
		if err := r.confirmHost(ctx); err != nil {
			return err
		}
	}
	r.assumed.Unprobed = true
	return r.takeRepo(ctx, repo)
}

// fetchByNewKey fetches a repo again whose signature is not of the key that the queue has,
// if another look-up finds another key.
func (r *reading) fetchByNewKey(ctx context.Context, wrong error) (*network.Repo, error) {
	if err := r.confirmHost(ctx); err != nil {
		return nil, err
	}
	if r.ident.KeyText() == r.owed.Key {
		return nil, wrong
	}
	r.identityCurrent = false
	return r.cfg.Network.Repo(ctx, r.host, r.ident)
}

// refuseUnasked decides what it means that a host has not given a repo that it was not
// asked about before. Only what it says of the account is its word.
func (r *reading) refuseUnasked(ctx context.Context, err error) error {
	failed, ok := errors.AsType[*network.Error](err)
	switch {
	case ok && isInactive(failed.Reason):
		return r.confirmGone(ctx, goneBy(failed))
	case ok && failed.Reason == outcome.ReasonNotFound:
		r.wholeRefused = failed
		return nil
	}
	r.wholeRefused = errNotGiven // if nothing else is said of it
	err = r.refuseWhole(ctx, err)
	if ok && slices.Contains([]outcome.Reason{outcome.ReasonBadSignature, outcome.ReasonBadRev}, failed.Reason) {
		// An account that has ended may have no key any more, or an old commit.
		r.wholeRefused = nil
		return nil
	}
	return err
}

// isInactive reports whether a reason is the status of an account that its host has.
func isInactive(reason outcome.Reason) bool {
	return slices.Contains([]outcome.Reason{
		outcome.ReasonDeactivated, outcome.ReasonTakenDown, outcome.ReasonSuspended, outcome.ReasonDeleted,
	}, reason)
}

// testRefusal finds out whether a host gives the repo of an account that it says is not
// active: then whatever it gives says nothing of an account. It is asked once in a job, and now
// and then.
func (r *reading) testRefusal(ctx context.Context, refused error) error {
	gone, ok := errors.AsType[*GoneError](refused)
	if !ok || gone.Inferred || gone.By == "" || !isInactive(gone.Reason) || !r.wantsWhole() {
		return refused
	}
	if _, known := r.refuses.Load(r.host); known && !r.cfg.Follow(r.owed.DID) {
		return refused
	}
	switch known, err := r.cfg.Store.Distrusted(ctx, r.owed.Host); {
	case err != nil:
		return err
	case known:
		return refused
	}
	repo, err := r.cfg.Network.Repo(ctx, r.host, r.ident)
	if err != nil {
		if errors.As(err, new(*network.Error)) {
			r.refuses.Store(r.host, struct{}{})
		}
		return refused
	}
	repo.Close()
	// It may have come back just now.
	again := r.probe(ctx)
	if gone, ok := errors.AsType[*GoneError](again); ok && isInactive(gone.Reason) {
		gone.Shown.More = true
		return gone
	}
	return refused
}
