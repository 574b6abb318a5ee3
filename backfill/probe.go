package backfill

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/network/outcome"
	"appview/store"
)

// errMoved says that the repo lives at another host.
type errMoved struct{ to network.Host }

func (e errMoved) Error() string { return "the repo has moved to " + string(e.to) }

// errGone says that the repo is unavailable, on the word of its current host or
// of its DID document.
type errGone struct {
	reason   outcome.Reason
	detail   string
	inferred bool // it is nobody's word
	host     bool // it is the host's answer, not the document's
}

func (e errGone) Error() string { return "the repo is unavailable: " + string(e.reason) }

// probe asks the host for the repo's rev and whether its account is active. Only
// the current host's word counts: any other answer than active, and a rev that
// the index is ahead of, lead to a look-up of the identity first.
func (r *reader) probe(ctx context.Context) error {
	status, err := r.w.b.cfg.Network.RepoStatus(ctx, r.host, r.o.DID)
	r.fresh = false
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == outcome.ClassUnavailable:
		return r.gone(ctx, goneFor(failed))
	case err != nil:
		return err
	case !status.Active && status.Reason().Class() != outcome.ClassUnavailable:
		// Out of step, or throttled: it may pass.
		return &network.Error{
			Reason: status.Reason(), Op: "getRepoStatus", Host: r.host, Err: fmt.Errorf("the account is %q", status.Status),
		}
	case !status.Active:
		gone := errGone{reason: status.Reason()}
		if word := status.Unusual(); word != "" {
			gone.detail = fmt.Sprintf("the host says that the account is %q", word)
		}
		return r.gone(ctx, gone)
	}
	if err := r.above(ctx, "getRepoStatus", status.Rev); err != nil {
		return err
	}
	r.rev = status.Rev
	return nil
}

// above fails when the index has read the repo at a later rev than the host shows
// now. By the way it finds out whether the account has come back.
func (r *reader) above(ctx context.Context, op string, rev syntax.TID) error {
	repo, err := r.w.b.cfg.Store.Repo(ctx, r.o.DID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	r.back = err == nil && !repo.Active()
	floor := repo.Floor
	if err != nil || rev >= floor {
		return err
	}
	if err := r.doubt(ctx); err != nil {
		return err
	}
	return &network.Error{
		Reason: outcome.ReasonRevWentBack, Op: op, Host: r.host,
		Err: fmt.Errorf("%w: rev %s, read before at %s", store.ErrRevWentBack, rev, floor),
	}
}

// gone believes the host that the repo is unavailable, if it is the repo's host.
func (r *reader) gone(ctx context.Context, gone errGone) error {
	if err := r.doubt(ctx); err != nil {
		return err
	}
	gone.host = true
	return gone
}

// goneFor is what a refusal says of an account that is unavailable.
func goneFor(refused *network.Error) errGone {
	return errGone{reason: refused.Reason, detail: detail(refused), inferred: refused.Inferred}
}

// doubt looks the identity up, once after each word of the host: the repo may have
// moved since an earlier look. It fails with errMoved or errGone if this host is not,
// or no longer, the one to ask.
func (r *reader) doubt(ctx context.Context) error {
	if r.fresh {
		return nil
	}
	ident, err := r.w.lookup(ctx, r.o.DID)
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == outcome.ClassUnavailable:
		return goneFor(failed)
	case err != nil:
		return err
	}
	r.fresh, r.ident = true, ident
	if ident.PDS != r.host {
		return errMoved{ident.PDS}
	}
	return nil
}
