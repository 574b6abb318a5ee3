package read

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

// MovedError says that the repo lives at another host.
type MovedError struct {
	To       network.Identity
	LookedUp time.Time
}

func (e *MovedError) Error() string { return "the repo has moved to " + string(e.To.PDS) }

// GoneError says that the repo is unavailable, on the word of its current host or
// of its DID document.
type GoneError struct {
	Reason   outcome.Reason
	Detail   string          // the reason in words, empty if it says everything
	Inferred bool            // it is nobody's word
	By       network.Host    // whose answer it is; empty: the document's, or our own
	Shown    jobs.ShortPages // More: and yet the host gives the repo
}

func (e *GoneError) Error() string { return "the repo is unavailable: " + string(e.Reason) }

// probe asks the host for the repo's rev and whether its account is active. Only
// the current host's word counts: any other answer than active, and a rev that
// the index is ahead of, lead to a look-up of the identity first.
func (r *reading) probe(ctx context.Context) error {
	status, err := r.cfg.Network.RepoStatus(ctx, r.host, r.owed.DID)
	r.identityCurrent = false
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == outcome.ClassUnavailable:
		return r.confirmGone(ctx, goneBy(failed))
	case err != nil:
		return err
	case !status.Active && status.Reason().Class() != outcome.ClassUnavailable:
		// Out of step, or throttled: it may pass.
		return &network.Error{
			Reason: status.Reason(), Op: "getRepoStatus", Host: r.host, Err: fmt.Errorf("the account is %q", status.Status),
		}
	case !status.Active:
		gone := &GoneError{Reason: status.Reason()}
		if word := status.Unusual(); word != "" {
			gone.Detail = fmt.Sprintf("the host says that the account is %q", word)
		}
		return r.confirmGone(ctx, gone)
	}
	if err := r.checkRev(ctx, "getRepoStatus", status.Rev); err != nil {
		return err
	}
	r.rev = status.Rev
	return nil
}

// checkRev fails when the index has read the repo at a later rev than the host shows
// now. It notes what the index holds of the repo.
func (r *reading) checkRev(ctx context.Context, op string, rev syntax.TID) error {
	repo, err := r.cfg.Store.Repo(ctx, r.owed.DID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.known = &repo
	if rev >= repo.Floor {
		return nil
	}
	if err := r.confirmHost(ctx); err != nil {
		return err
	}
	return &network.Error{
		Reason: outcome.ReasonRevWentBack, Op: op, Host: r.host,
		Err: fmt.Errorf("%w: rev %s, read before at %s", index.ErrRevWentBack, rev, repo.Floor),
	}
}

// confirmGone believes the host that the repo is unavailable, if it is the repo's host.
func (r *reading) confirmGone(ctx context.Context, gone *GoneError) error {
	if err := r.confirmHost(ctx); err != nil {
		return err
	}
	gone.By = r.host
	return gone
}

// goneBy is what a refusal says of an account that is unavailable.
func goneBy(refused *network.Error) *GoneError {
	return &GoneError{Reason: refused.Reason, Detail: Detail(refused), Inferred: refused.Inferred}
}

// maxDetail bounds what a row says about a failure.
const maxDetail = 300

// Detail is an error in words, as a row says it.
func Detail(err error) string {
	s := err.Error()
	if len(s) > maxDetail {
		s = s[:maxDetail] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// confirmHost looks the identity up, once after each answer of the host: the repo may have
// moved since an earlier look. It fails with a MovedError or a GoneError if this host is
// not, or no longer, the one to ask.
func (r *reading) confirmHost(ctx context.Context) error {
	if r.identityCurrent {
		return nil
	}
	asked := r.cfg.Now()
	ident, err := r.cfg.Network.Lookup(ctx, r.owed.DID)
	var failed *network.Error
	switch {
	case errors.As(err, &failed) && failed.Reason.Class() == outcome.ClassUnavailable:
		return goneBy(failed)
	case err != nil:
		return err
	}
	r.identityCurrent, r.ident = true, ident
	if ident.PDS != r.host {
		return &MovedError{ident, asked}
	}
	return nil
}
