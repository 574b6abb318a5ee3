package read

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/record"
	"appview/store/index"
)

// MaxListed is how many collections of a repo are listed one by one. For more of
// them one request for the whole repo costs the host less.
const MaxListed = 3

// errNotGiven is why getRepo will not do where nothing is to be held against the repo:
// its quota is spent, the host never answers it, or has an old copy.
var errNotGiven = errors.New("the host does not give the repo in one piece now")

// readWhole reads the repo in one piece: signed, so that it is exact at the rev of its
// commit. The method is Whole afterwards; it is not, with nothing read and no error, where
// the host cannot give it, or not well enough, and listing may do. It is tried once.
func (r *reading) readWhole(ctx context.Context) error {
	if r.wholeRefused != nil {
		return nil
	}
	r.wholeRefused = errNotGiven // if this fails
	// A host may take hours over a repo, and others wait for the memory of a page.
	r.page.Close()
	r.identityCurrent = false
	if err := r.confirmHost(ctx); err != nil { // for the key
		return err
	}
	repo, err := r.cfg.Network.Repo(ctx, r.host, r.ident)
	r.identityCurrent = false
	if err != nil {
		return r.refuseWhole(ctx, err)
	}
	defer repo.Close()
	return r.takeRepo(ctx, repo)
}

// takeRepo takes a repo that the host has given.
func (r *reading) takeRepo(ctx context.Context, repo *network.Repo) error {
	if repo.Rev < r.rev {
		return nil // an old copy
	}
	if err := r.checkRev(ctx, "getRepo", repo.Rev); err != nil {
		return err
	}
	refuted := r.pass.pageRefuted && repo.Rev == r.pass.first // what was listed before was listed at this rev
	r.rev, r.source = repo.Rev, index.SourceRepo
	r.setPass(pass{first: repo.Rev, number: r.pass.number, pageRefuted: refuted})
	r.move(fetch)
	list, err := r.wantedCollections(ctx, repo.Collections())
	if err != nil {
		return err
	}
	for _, c := range slices.SortedFunc(slices.Values(list), lastInTree) { // the list is the reader's own
		if err := r.takeCollection(ctx, c, repo); err != nil {
			return err
		}
	}
	r.rejects = repo.Rejected(r.cfg.Targets...)
	r.move(confirm)
	return nil
}

// refuseWhole decides what it means that a host has not given the repo in one piece:
// nothing where listing may do.
func (r *reading) refuseWhole(ctx context.Context, err error) error {
	var (
		failed *network.Error
		parked *network.Parked
	)
	switch {
	case errors.As(err, &parked) && parked.Why == polite.WhyDown && parked.Host == r.host:
		return nil // it never answers getRepo
	case r.isQuotaSpent(err, r.cfg.Network.ParkedUntil):
		return nil
	case !errors.As(err, &failed):
		return err
	case failed.Reason == outcome.ReasonNotFound && r.rev != "":
		// The host has just said that the account is active. It may have none of this
		// method, or be confused; what became of the account, its listing shows.
		return nil
	case failed.Reason.Class() == outcome.ClassUnavailable:
		return r.confirmGone(ctx, goneBy(failed))
	case isListable(failed.Reason):
		r.cfg.Log.DebugContext(ctx, "repo is listed instead", "did", r.owed.DID, "host", r.host, "err", failed)
		r.wholeRefused = failed
		return nil
	default:
		return err
	}
}

// isUnprobed reports whether a host has refused to say how a repo is without a word about
// the account.
func isUnprobed(err error) bool {
	var (
		failed *network.Error
		gone   *GoneError
	)
	if errors.As(err, &gone) {
		return gone.Inferred
	}
	return errors.As(err, &failed) && (failed.Reason == outcome.ReasonNoRev || failed.Reason == outcome.ReasonHTTP4xx)
}

// readWithoutProbe reads the repo in one piece where the host has not said how it is,
// which has a quota of its own: its commit has the rev, and what is given is there.
// refused is what the attempt comes to where that is not to be had.
func (r *reading) readWithoutProbe(ctx context.Context, refused error) error {
	unprobed := isUnprobed(refused)
	if !unprobed && (r.owed.Position != nil || !r.isQuotaSpent(refused, r.cfg.Network.RepoParkedUntil)) {
		return refused
	}
	var gone *GoneError
	if at := r.owed.Position; at != nil {
		if !at.Whole && !errors.As(refused, &gone) {
			return refused // it was listed up to there, and the host answered
		}
		r.setPass(pass{first: at.First, number: at.Pass, spent: at.Spent})
		again := r.position()
		again.Whole = true
		if err := r.cfg.Store.Restart(ctx, r.cfg.Job, r.owed.Host, r.owed.DID, again); err != nil {
			return err
		}
	}
	if err := r.readWhole(ctx); err != nil || r.how == Whole {
		return err
	}
	notGiven, _ := errors.AsType[*network.Error](r.wholeRefused)
	if unprobed {
		return r.explainUnprobed(refused, notGiven)
	}
	if _, gives := r.givesWhole.Load(r.host); gives && notGiven != nil && notGiven.Reason.Retryable() && isParkedAs(refused, polite.WhyDown) {
		// The host gives others, and lists none: that it does not give this one is the
		// repo's failure. As the host's it would hold up all that stand behind it.
		return notGiven
	}
	return refused
}

// explainUnprobed is what an attempt comes to at a host that has refused to say how the
// repo is, and does not give it whole.
func (r *reading) explainUnprobed(refused error, notGiven *network.Error) error {
	var failed *network.Error
	switch {
	case notGiven == nil || !errors.As(refused, &failed):
	case !notGiven.Reason.Retryable() && notGiven.Reason != outcome.ReasonHTTP4xx:
		return notGiven // it would be the same in every attempt
	case failed.Err == nil:
		failed.Err = fmt.Errorf("nor is it given whole: %w", notGiven)
	default:
		failed.Err = fmt.Errorf("%w, nor is it given whole: %w", failed.Err, notGiven)
	}
	return refused
}

// isParkedAs reports whether a request was kept back, and for that.
func isParkedAs(err error, why string) bool {
	var parked *network.Parked
	return errors.As(err, &parked) && parked.Why == why
}

// lastInTree orders collections as a walk of the tree meets them, the last keys first.
func lastInTree(a, b syntax.NSID) int { return strings.Compare(b.String()+"/", a.String()+"/") }

// longPause is a pause that it is worth asking for something else for.
const longPause = 10 * time.Second

// isQuotaSpent reports whether a request was not answered because a quota of the host's is
// spent, when the quota that other tells of is not: getRepo is counted apart. Likewise
// where the host is set aside for one question that it never answers.
func (r *reading) isQuotaSpent(err error, other func(network.Host) (time.Time, bool)) bool {
	var parked *network.Parked
	if !errors.As(err, &parked) || parked.Host != r.host {
		return false
	}
	switch parked.Why {
	case polite.WhyRateLimited, polite.WhyPaced:
		if parked.Until.Sub(r.cfg.Now()) < longPause {
			return false
		}
	case polite.WhyDown:
		if r.cfg.Network.HostState(r.host).Stuck == "" {
			return false
		}
	default:
		return false
	}
	_, closed := other(r.host)
	return !closed
}

// isListable reports whether listRecords may do where getRepo has failed. A repo with
// a wrong signature is not to be had in another way.
func isListable(reason outcome.Reason) bool {
	return slices.Contains([]outcome.Reason{
		outcome.ReasonTooLarge, outcome.ReasonHTTP4xx, outcome.ReasonHTTP5xx, outcome.ReasonBadAnswer,
		outcome.ReasonIncomplete, outcome.ReasonCutBody, outcome.ReasonTimeout,
	}, reason)
}

// takeCollection takes one collection of a whole repo, and commits a step of it whenever
// enough is buffered.
func (r *reading) takeCollection(ctx context.Context, c syntax.NSID, repo *network.Repo) error {
	s := segment{did: r.owed.DID, seg: index.Segment{Collection: c}}
	for rkey, block := range repo.Records(ctx, c) {
		s.last = rkey
		body, err := record.FromCBOR(block.Data, block.CID)
		if err != nil {
			s.seg.Rejected = append(s.seg.Rejected, rkey)
		} else {
			s.seg.Records = append(s.seg.Records, index.Listed{RKey: rkey, Body: body})
		}
		if r.addBuffer(len(block.Data) + recordBytes); r.mustCommit() {
			if _, err := r.commitStep(ctx, &s); err != nil {
				return err
			}
		}
	}
	if err := repo.Err(); err != nil {
		return err
	}
	r.endCollection(&s, Complete, "")
	return nil
}
