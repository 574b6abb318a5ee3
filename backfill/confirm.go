package backfill

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network"
	"appview/store"
)

// A listing in key order, up or down, shows what is absent. From one in any other order a
// record can slip: what it does not name is asked for, one by one, between two equal revs.

const (
	// maxConfirmed bounds the records of a repo that are asked for in a pass.
	maxConfirmed = 1_000
	// fewConfirmed is how many of them cost the host less than the whole repo does.
	fewConfirmed = 5
)

// isProof reports whether a listing that has come to its end shows what is absent.
func isProof(at store.ReadUpTo) bool { return at.Order != store.OrderNone }

// toEnd reports whether a collection was listed to its end with nothing in it that may
// stand for any record.
func toEnd(at store.ReadUpTo) bool { return at.Done && !at.Partial && at.Broken == "" }

// findMissing finds what the index holds of collections whose listings are no proof, and
// was not listed.
func (r *reader) findMissing(ctx context.Context) error {
	r.missing = map[syntax.NSID][]syntax.RecordKey{}
	for c, at := range r.at.Read {
		if isProof(at) || !toEnd(at) {
			continue
		}
		keys, err := r.w.b.cfg.Store.Unlisted(ctx, r.w.seq, r.o.DID, r.segment(c), maxConfirmed+1)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			r.missing[c] = keys
		}
	}
	return nil
}

// segment is what is buffered of a collection.
func (r *reader) segment(c syntax.NSID) store.Segment {
	return r.reading(r.segments).Segment(c)
}

// countMissing is how many records findMissing has found.
func (r *reader) countMissing() (n int) {
	for _, keys := range r.missing {
		n += len(keys)
	}
	return n
}

// confirm asks the host for what was not listed, unless the repo has changed since the
// pass began. Whatever is not confirmed to be absent makes the reading incomplete.
func (r *reader) confirm(ctx context.Context) error {
	if len(r.missing) == 0 {
		return nil
	}
	if err := r.probe(ctx); err != nil || r.rev != r.at.First {
		return err
	}
	r.confirmed = map[syntax.NSID][]syntax.RecordKey{}
	left := maxConfirmed
	for c, keys := range r.missing {
		r.confirmed[c] = nil
		for _, rkey := range keys {
			if left--; left < 0 {
				r.unclear = fmt.Sprintf("more than %d records of %s are not listed, in no order of keys", maxConfirmed, c)
				return nil
			}
			has, err := r.w.b.cfg.Network.HasRecord(ctx, r.host, r.o.DID, c, rkey)
			r.fresh = false
			var failed *network.Error
			switch {
			case errors.As(err, &failed):
				r.unclear = fmt.Sprintf("%s is not listed, in no order of keys, and cannot be asked for: %s", rkey, detail(failed))
				return nil
			case err != nil:
				return err
			case has:
				r.unclear = fmt.Sprintf("%s of %s is not listed, in no order of keys, and is there", rkey, c)
			default:
				r.confirmed[c] = append(r.confirmed[c], rkey)
			}
		}
	}
	return nil
}

// incomplete is why the pass does not show all that the repo holds, at one rev or not; it
// is empty if it does.
func (r *reader) incomplete(oneRev bool) string {
	for c, at := range r.at.Read {
		switch {
		case at.Broken != "":
			return at.Broken
		case !isProof(at) && !oneRev:
			return fmt.Sprintf("%s is listed in no order of keys, and the repo changes meanwhile", c)
		}
	}
	return r.unclear
}

// mayYetGive reports whether another attempt may have the whole repo, which the listing
// does not show: this one has failed in a way that may pass, and there are attempts left.
func (r *reader) mayYetGive() bool {
	passes := r.notWhole == nil || r.notWhole.Reason.Retryable() && r.notWhole.Status != http.StatusNotImplemented
	return !r.steps && r.listing && passes && r.o.Attempts+1 < r.w.b.cfg.Attempts
}

// complete are the collections that were read from end to end, with nothing in them that
// cannot be told.
func (r *reader) complete(exact bool) (list []syntax.NSID) {
	for c, at := range r.at.Read {
		if toEnd(at) && (isProof(at) || exact) {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}
