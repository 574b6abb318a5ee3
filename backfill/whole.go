package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/network/outcome"
	"appview/network/polite"
	"appview/network/repo"
	"appview/record"
	"appview/store"
)

// maxListed is how many collections of a repo are listed one by one. For more of
// them one request for the whole repo costs the host less.
const maxListed = 3

// errWhole ends a listing because the repo was read in one piece meanwhile.
var errWhole = errors.New("read in one piece")

// whole reads the repo in one piece: signed, so that it is exact at the rev of its
// commit. It reports false, with nothing read, where the host cannot give it, or
// not well enough, and listing may do.
func (r *reader) whole(ctx context.Context) (bool, error) {
	if r.listing {
		return false, nil
	}
	r.listing = true // if this fails
	// A host may take hours over a repo, and others wait for the memory of a page.
	r.page.Close()
	r.fresh = false
	if err := r.doubt(ctx); err != nil { // for the key
		return false, err
	}
	repo, err := r.w.b.cfg.Network.Repo(ctx, r.host, r.ident)
	r.fresh = false
	var (
		failed *network.Error
		parked *network.Parked
	)
	switch {
	case err == nil:
	case errors.As(err, &parked) && parked.Why == polite.WhyDown && parked.Host == r.host:
		return false, nil // it never answers getRepo
	case r.spent(err, r.w.b.cfg.Network.ParkedUntil):
		return false, nil
	case !errors.As(err, &failed):
		return false, err
	case failed.Reason == outcome.ReasonNotFound && r.rev != "":
		// The host has just said that the account is active. It may have none of this
		// method, or be confused; what became of the account, its listing shows.
		return false, nil
	case failed.Reason.Class() == outcome.ClassUnavailable:
		return false, r.gone(ctx, goneFor(failed))
	case listable(failed.Reason):
		r.w.log.DebugContext(ctx, "repo is listed instead", "did", r.o.DID, "host", r.host, "err", failed)
		r.notWhole = failed
		return false, nil
	default:
		return false, err
	}
	defer repo.Close()
	if repo.Rev < r.rev {
		return false, nil // an old copy
	}
	if err := r.above(ctx, "getRepo", repo.Rev); err != nil {
		return false, err
	}
	more := r.at.More && repo.Rev == r.at.First // what was listed before was listed at this rev
	r.rev, r.source = repo.Rev, store.SourceRepo
	r.begin(store.Position{First: repo.Rev, Pass: r.at.Pass, Whole: true, More: more})
	list, err := r.wanted(ctx, repo.Collections())
	if err != nil {
		return false, err
	}
	for _, c := range slices.SortedFunc(slices.Values(list), lastInTree) { // the list is the worker's own
		if err := r.take(ctx, c, repo); err != nil {
			return false, err
		}
	}
	r.rejects = repo.Rejected(r.w.targets...)
	return true, nil
}

// unprobed reports whether a host has refused to say how a repo is without a word about
// the account.
func unprobed(err error) bool {
	var (
		failed *network.Error
		gone   errGone
	)
	if errors.As(err, &gone) {
		return gone.inferred
	}
	return errors.As(err, &failed) && (failed.Reason == outcome.ReasonNoRev || failed.Reason == outcome.ReasonHTTP4xx)
}

// readUnprobed reads the repo in one piece at a host that has refused to say how it is:
// its commit has the rev, and what is given is there. refused is what the attempt comes
// to where that is not to be had.
func (r *reader) readUnprobed(ctx context.Context, refused error) (exact bool, err error) {
	var gone errGone
	if at := r.o.Position; at != nil && !at.Whole && !errors.As(refused, &gone) {
		return false, refused // it was listed up to there, and the host answered
	} else if at != nil {
		r.begin(store.Position{First: at.First, Pass: at.Pass, Spent: at.Spent, Whole: true})
		if err := r.w.b.cfg.Store.Restart(ctx, r.w.seq, r.o.Host, r.o.DID, r.at); err != nil {
			return false, err
		}
	}
	if done, err := r.whole(ctx); done || err != nil {
		return done, err
	}
	var failed *network.Error
	switch {
	case r.notWhole == nil || !errors.As(refused, &failed):
	case !r.notWhole.Reason.Retryable() && r.notWhole.Reason != outcome.ReasonHTTP4xx:
		return false, r.notWhole // it would be the same in every attempt
	case failed.Err == nil:
		failed.Err = fmt.Errorf("nor is it given whole: %w", r.notWhole)
	default:
		failed.Err = fmt.Errorf("%w, nor is it given whole: %w", failed.Err, r.notWhole)
	}
	return false, refused
}

// lastInTree orders collections as a walk of the tree meets them, the last keys first.
func lastInTree(a, b syntax.NSID) int { return strings.Compare(b.String()+"/", a.String()+"/") }

// longPause is a pause that it is worth asking for something else for.
const longPause = 10 * time.Second

// spent tells whether a request was not answered because a quota of the host's is
// spent, when the quota that other tells of is not: getRepo is counted apart. Likewise
// where the host is set aside for one question that it never answers.
func (r *reader) spent(err error, other func(network.Host) (time.Time, bool)) bool {
	var parked *network.Parked
	if !errors.As(err, &parked) || parked.Host != r.host {
		return false
	}
	switch parked.Why {
	case polite.WhyRateLimited, polite.WhyPaced:
		if parked.Until.Sub(r.w.b.now()) < longPause {
			return false
		}
	case polite.WhyDown:
		if r.w.b.cfg.Network.HostState(r.host).Stuck == "" {
			return false
		}
	default:
		return false
	}
	_, closed := other(r.host)
	return !closed
}

// listable tells whether listRecords may do where getRepo has failed. A repo with
// a wrong signature is not to be had in another way.
func listable(reason outcome.Reason) bool {
	return slices.Contains([]outcome.Reason{
		outcome.ReasonTooLarge, outcome.ReasonHTTP4xx, outcome.ReasonHTTP5xx, outcome.ReasonBadAnswer,
		outcome.ReasonIncomplete, outcome.ReasonCutBody, outcome.ReasonTimeout,
	}, reason)
}

// begin starts a reading of the repo with nothing read of it.
func (r *reader) begin(at store.Position) {
	at.Read = map[syntax.NSID]store.ReadUpTo{}
	at.Proofs = r.o.Proofs
	r.at = at
	r.drop()
	r.segments, r.requests, r.full, r.same, r.ends = nil, 0, false, false, nil
	r.rejects = repo.Rejects{}
	r.values.unproved = nil
	r.missing, r.confirmed, r.unclear = nil, nil, ""
}

// take takes one collection of a whole repo, and commits a step of it whenever
// enough is buffered.
func (r *reader) take(ctx context.Context, c syntax.NSID, repo *network.Repo) error {
	s := stretch{did: r.o.DID, seg: store.Segment{Collection: c}}
	for rkey, block := range repo.Records(ctx, c) {
		s.last = rkey
		body, err := record.FromCBOR(block.Data, block.CID)
		if err != nil {
			s.seg.Rejected = append(s.seg.Rejected, rkey)
		} else {
			s.seg.Records = append(s.seg.Records, store.Listed{RKey: rkey, Body: body})
		}
		if r.hold(len(block.Data) + recordBytes); r.buffered() {
			if _, err := r.save(ctx, &s); err != nil {
				return err
			}
		}
	}
	if err := repo.Err(); err != nil {
		return err
	}
	r.end(&s, store.ReadUpTo{Done: true})
	return nil
}
