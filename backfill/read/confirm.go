package read

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/store/index"
)

// A listing in key order, up or down, shows what is absent. From one in any other order a
// record can slip: what it does not name is asked for, one by one, between two equal revs.

const (
	// maxConfirmed bounds the records of a repo that are asked for in a pass.
	maxConfirmed = 1_000
	// fewConfirmed is how many of them cost the host less than the whole repo does.
	fewConfirmed = 5
)

// absences are the records that the index holds and a listing in no order did not name.
type absences struct {
	unlisted  map[syntax.NSID][]syntax.RecordKey
	confirmed map[syntax.NSID][]syntax.RecordKey // of these, what the host says is not there
	unclear   string                             // why the pass does not show all that there is
}

// count is how many records were not listed.
func (a absences) count() (n int) {
	for _, keys := range a.unlisted {
		n += len(keys)
	}
	return n
}

// findUnlisted finds what the index holds of collections whose listings are no proof, and
// was not listed.
func (r *reading) findUnlisted(ctx context.Context) error {
	r.absent.unlisted = map[syntax.NSID][]syntax.RecordKey{}
	for c, read := range r.pass.read {
		if read.provesAbsence() || !read.isReadToEnd() {
			continue
		}
		keys, err := r.cfg.Store.Unlisted(ctx, r.cfg.Job, r.owed.DID, r.buffered(c), maxConfirmed+1)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			r.absent.unlisted[c] = keys
		}
	}
	return nil
}

// buffered is what is buffered of a collection.
func (r *reading) buffered(c syntax.NSID) index.Segment {
	return r.part(r.segments).Segment(c)
}

// confirmAbsent asks the host for what was not listed, unless the repo has changed since the
// pass began. Whatever is not confirmed to be absent makes the reading incomplete.
func (r *reading) confirmAbsent(ctx context.Context) error {
	if len(r.absent.unlisted) == 0 {
		return nil
	}
	if err := r.probe(ctx); err != nil || r.rev != r.pass.first {
		return err
	}
	r.absent.confirmed = map[syntax.NSID][]syntax.RecordKey{}
	left := maxConfirmed
	for c, keys := range r.absent.unlisted {
		r.absent.confirmed[c] = nil
		for _, rkey := range keys {
			if left--; left < 0 {
				r.absent.unclear = fmt.Sprintf("more than %d records of %s are not listed, in no order of keys", maxConfirmed, c)
				return nil
			}
			has, err := r.cfg.Network.HasRecord(ctx, r.host, r.owed.DID, c, rkey)
			r.identityCurrent = false
			var failed *network.Error
			switch {
			case errors.As(err, &failed):
				r.absent.unclear = fmt.Sprintf("%s is not listed, in no order of keys, and cannot be asked for: %s", rkey, Detail(failed))
				return nil
			case err != nil:
				return err
			case has:
				r.cfg.Progress(r.owed.Host)
				r.absent.unclear = fmt.Sprintf("%s of %s is not listed, in no order of keys, and is there", rkey, c)
			default:
				r.cfg.Progress(r.owed.Host) // each is asked for once, as each page is
				r.absent.confirmed[c] = append(r.absent.confirmed[c], rkey)
			}
		}
	}
	return nil
}

// incompleteReason is why the pass does not show all that the repo holds, at one rev or
// not; it is empty if it does.
func (r *reading) incompleteReason(oneRev bool) string {
	for c, read := range r.pass.read {
		switch {
		case read.Extent == Broken:
			return read.broken
		case !read.provesAbsence() && !oneRev:
			return fmt.Sprintf("%s is listed in no order of keys, and the repo changes meanwhile", c)
		}
	}
	return r.absent.unclear
}

// mayYetComplete reports whether another attempt may have the whole repo, which the listing
// does not show: this one has failed in a way that may pass, and there are attempts left.
func (r *reading) mayYetComplete() bool {
	failed, ok := errors.AsType[*network.Error](r.wholeRefused)
	passes := !ok || failed.Reason.Retryable() && failed.Status != http.StatusNotImplemented
	return r.mayTurnWhole() && r.wholeRefused != nil && passes && !r.isLastAttempt()
}
