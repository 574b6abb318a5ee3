package read

import (
	"context"
	"errors"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/record"
	"appview/store"
	"appview/store/index"
)

const (
	// maxProofs is how many records a host is asked to prove for one repo and job.
	maxProofs = 100
	// fewProofs is for how many records this is done before the whole repo is asked for.
	fewProofs = 10
	// maxUnproved is how many requests for a proof may fail in a row before no more are made.
	maxUnproved = 3
)

// values reads the values of listed records.
type values struct {
	record.Verifier

	unproved map[path]bool // records that no hash has proved and that may be right: whether a proof was asked for
}

// path is where a record stands in its repo.
type path struct {
	collection syntax.NSID
	rkey       syntax.RecordKey
}

// read reads a listed value. Of one that is unproved the body is what is to be kept of it
// if there is no proof; without data nothing is. It reports false for one that is wrong.
func (v *values) read(p path, l network.Listed) (record.Body, bool) {
	body, err := v.FromJSON(l.Value, l.CID)
	if !errors.Is(err, record.ErrUnproved) {
		return body, err == nil
	}
	if v.unproved == nil {
		v.unproved = map[path]bool{}
	}
	if _, again := v.unproved[p]; !again {
		v.unproved[p] = false
	}
	return body, true
}

// proofs is how it stands with the proofs of one repo's records.
type proofs struct {
	failures int   // in a row
	passing  error // the last that may pass
}

// proveFew proves what no hash has proved, if it is little and the whole repo has not
// to be read for something else.
func (r *reading) proveFew(ctx context.Context) error {
	if n := len(r.values.unproved); !r.mayTurnWhole() || n == 0 || n > fewProofs || r.hasRejected() {
		return nil
	}
	return r.prove(ctx, r.segments)
}

// proveRest proves what no hash and no whole repo has proved. What no proof is to be had
// of is kept unverified, or rejected.
func (r *reading) proveRest(ctx context.Context, segments []index.Segment) error {
	if len(r.values.unproved) == 0 {
		return nil
	}
	if err := r.prove(ctx, segments); err != nil {
		return err
	}
	if len(r.values.unproved) > 0 && r.mayYetProve() {
		return r.proofs.passing
	}
	err := r.eachUnproved(segments, func(_ path, l *index.Listed) error {
		if l.Body.Data == nil {
			l.Body = record.Body{}
		}
		return nil
	})
	r.values.unproved = nil
	return err
}

// mayYetProve reports whether another attempt may bring the proofs that this one has not.
func (r *reading) mayYetProve() bool {
	_, attempt := errors.AsType[*network.Error](r.proofs.passing)
	return r.proofs.passing != nil && (!attempt || !r.isLastAttempt())
}

// prove has the index or the host prove records. Those of which it finds out nothing
// stay unproved.
func (r *reading) prove(ctx context.Context, segments []index.Segment) error {
	return r.eachUnproved(segments, func(p path, l *index.Listed) error {
		known, err := r.takeKnownProof(ctx, p, l)
		if known || err != nil {
			return err
		}
		return r.askProof(ctx, p, l)
	})
}

// eachUnproved calls f for every unproved record. One that f leaves without a CID is rejected.
func (r *reading) eachUnproved(segments []index.Segment, f func(path, *index.Listed) error) error {
	for i := range segments {
		s, rejects := &segments[i], false
		for j := range s.Records {
			l, p := &s.Records[j], path{s.Collection, s.Records[j].RKey}
			if _, unproved := r.values.unproved[p]; !unproved || l.Body.Verified {
				continue
			}
			if err := f(p, l); err != nil {
				return err
			}
			rejects = rejects || !l.Body.CID.Defined()
		}
		if rejects {
			s.Records = slices.DeleteFunc(s.Records, func(l index.Listed) bool {
				if !l.Body.CID.Defined() {
					s.Rejected = append(s.Rejected, l.RKey)
				}
				return !l.Body.CID.Defined()
			})
		}
	}
	return nil
}

// settleProof settles an unproved record. The zero body rejects it.
func (r *reading) settleProof(p path, l *index.Listed, body record.Body, src index.Source) {
	l.Body, l.Source = body, src
	delete(r.values.unproved, p)
}

// takeKnownProof takes a record as the index holds it, if that is proved and has the CID.
func (r *reading) takeKnownProof(ctx context.Context, p path, l *index.Listed) (bool, error) {
	rec, err := r.cfg.Store.Record(ctx, record.URI{DID: r.owed.DID, Collection: p.collection, RKey: p.rkey})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil || !rec.Proved() || !rec.Body.CID.Equals(l.Body.CID):
		return false, err
	}
	r.settleProof(p, l, rec.Body, rec.Source)
	return true, nil
}

// askProof asks the host for the record's block, with the proof that it is the repo's.
func (r *reading) askProof(ctx context.Context, p path, l *index.Listed) error {
	if r.values.unproved[p] || r.owed.Proofs >= maxProofs || r.proofs.failures >= maxUnproved {
		return nil
	}
	r.values.unproved[p] = true
	r.page.Close()                 // others wait for its memory
	if r.ident.DID != r.owed.DID { // for the key
		if err := r.confirmHost(ctx); err != nil {
			return err
		}
	}
	r.owed.Proofs++
	proof, err := r.cfg.Network.RecordProof(ctx, r.host, r.ident, p.collection, p.rkey)
	r.identityCurrent = false
	if err != nil {
		return r.explainNoProof(ctx, err)
	}
	r.proofs.failures = 0
	r.cfg.Progress(r.owed.Host)
	id, changed := proof.Block.CID, proof.Rev > r.rev
	if changed && !id.Equals(l.Body.CID) {
		r.move(answer) // it saw the repo at a moment of its own
	}
	switch {
	case proof.Rev < r.rev: // an old copy
	case id.Defined():
		body, err := record.FromCBOR(proof.Block.Data, id)
		if err != nil {
			body = record.Body{} // no record, whoever says so
		}
		r.settleProof(p, l, body, index.SourceProof)
	case !changed: // there is no such record
		r.settleProof(p, l, record.Body{}, 0)
	}
	return nil
}

// explainNoProof decides what it means that a host has not given a proof: nothing, where it
// gives none, or not this one.
func (r *reading) explainNoProof(ctx context.Context, err error) error {
	var (
		failed *network.Error
		parked *network.Parked
	)
	switch {
	case errors.As(err, &parked) && parked.Host == r.host && parked.Why == polite.WhyDown && r.cfg.Network.HostState(r.host).Stuck != "":
		r.proofs.failures = maxUnproved // it never answers this
	case r.mayTurnWhole() && r.wholeRefused == nil && r.isQuotaSpent(err, r.cfg.Network.RepoParkedUntil):
		r.proofs.failures, r.proofs.passing = maxUnproved, err // the whole repo may be had meanwhile
	case !errors.As(err, &failed):
		return err
	case failed.Reason.Class() == outcome.ClassUnavailable && failed.Reason != outcome.ReasonNotFound:
		return r.confirmGone(ctx, goneBy(failed))
	case failed.NoSuchMethod():
		r.proofs.failures = maxUnproved
	case isListable(failed.Reason), failed.Reason == outcome.ReasonNotFound:
		r.proofs.failures++
		if failed.Reason.Retryable() && failed.Reason != outcome.ReasonBadAnswer {
			r.proofs.passing = failed
		}
	default:
		return err
	}
	return nil
}
