package index

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// notFoundTwice is how far apart an account must be not found twice, each time in so many
// words, for its records to be purged.
const notFoundTwice = 7 * 24 * time.Hour

// Change is what is to become of what the index holds of one repo: what a reading brings, or
// the step of one, what is known of its account, and what is to be deleted.
type Change struct {
	DID     syntax.DID
	Reading Reading

	// Of a reading in steps.
	Marks     Marks   // of what its steps have listed
	Step      bool    // more of it is to come: what is listed is marked
	Continues bool    // earlier steps of it are in the index
	Before    Applied // what they came to
	Begun     bool    // a part of this change was made in a transaction before: kv.ErrAgain

	Complete []syntax.NSID // collections that were listed from end to end: what they did not name is deleted
	Kept     []syntax.NSID // of these, those that were not listed, since they are held as they were at Floor
	// Confirmed are, by collection, records that a listing did not name and its host says
	// are not there. Of the collections in it, complete or not, nothing else is deleted.
	Confirmed map[syntax.NSID][]syntax.RecordKey
	Floor     syntax.TID    // the probe before the first page: the floor of the complete ones
	Exact     bool          // all of it was seen at one rev
	Assumed   []syntax.NSID // where a short page was taken for the end
	Strict    bool          // short pages of the host are known not to be the end of its listings

	Account  string // the host's word on the account; empty: not known
	Inferred bool   // AccountNotFound is nobody's word: it hides, and is not counted
	Purge    bool   // the account is gone for good: nothing of it stays

	Events []Event // that a stream has told of, in its order

	// Delete are records that somebody wants to be deleted, whatever the host says.
	Delete map[syntax.NSID][]syntax.RecordKey
}

// Applied is what a change came to.
type Applied struct {
	Tally   Tally
	Guarded bool // the index kept something newer
	Fresh   int  // entries that no earlier step had listed
	Told    Told
	Assumed bool // it rests on an end that was assumed, now or when what is kept was read
}

// total is what was counted before a change and with it.
func (a Applied) total(now Applied) Applied {
	now.Tally.Add(a.Tally)
	now.Guarded = now.Guarded || a.Guarded
	return now
}

// Apply makes a change. Every change of what the index holds of a repo comes by here, and
// all guards stand here. It refuses, before anything is written, with ErrDenied, ErrUndone,
// ErrNotTheEnd or ErrRevWentBack; it fails with ErrAccountFull, before anything is written
// too, so that something else can be made of it. With kv.ErrAgain it is done in part: the
// result is that of the part.
func (x *Index) Apply(tx *kv.Tx, c Change) (Applied, error) {
	g, err := groups.In(tx)
	if err != nil {
		return Applied{}, err
	}
	r, err := g.repo(c.DID)
	if err != nil {
		return Applied{}, err
	}
	if err := x.guard(r, c); err != nil {
		return Applied{}, err
	}
	var now Applied
	if err = r.applyEvents(c.Events, x.maxAccountBytes, &now.Told); err != nil {
		return now, err
	}
	if err = r.apply(c, &now); err != nil && !errors.Is(err, kv.ErrAgain) {
		return now, err
	}
	if err := r.save(); err != nil {
		return now, err
	}
	now.Assumed = r.assumes(c)
	return now, err
}

// guard refuses a change that must not be made, since something else was committed
// meanwhile. It writes nothing.
func (x *Index) guard(r *repoRow, c Change) error {
	host := c.Reading.Host
	if len(c.Events) > 0 {
		host = r.repo.Host // as far as it is known
	}
	if len(c.Delete) == 0 && c.Account != AccountDenied && x.Denied(c.DID, host) {
		return c.refused(ErrDenied)
	}
	if c.Begun && c.Account != "" && c.Account != AccountActive && r.repo.Account != c.Account {
		return c.refused(ErrUndone) // what came after the account's end must not be deleted with the rest
	}
	if err := r.guardEnds(c); err != nil {
		return err
	}
	if rev := c.Reading.Rev; (rev != "" || c.Step) && r.repo.Floor > rev {
		return c.refused(fmt.Errorf("at %s, read before at %s: %w", rev, r.repo.Floor, ErrRevWentBack))
	}
	if c.Continues && c.Account == AccountActive && !r.repo.Active() {
		return c.refused(ErrUndone) // what earlier steps brought may be deleted
	}
	if !c.Begun {
		if err := r.fits(c, x.maxAccountBytes); err != nil {
			return err
		}
	}
	return r.guardKept(c)
}

// refused is why a change is not made. Nothing of it is written.
func (c Change) refused(why error) error {
	return kv.Refuse(fmt.Errorf("write what was read of %s: %w", c.DID, why))
}

// guardEnds refuses a change that takes a short page for the end where that must not be.
// Whoever read the repo has asked MayEnd, but others have written since.
func (r *repoRow) guardEnds(c Change) error {
	for _, collection := range c.Assumed {
		if c.Strict {
			return c.refused(ErrNotTheEnd)
		}
		behind, err := Unlisted(r.g.tx, c.Marks, c.DID, c.Reading.Segment(collection), 1)
		if err != nil {
			return err
		}
		if len(behind) > 0 {
			return c.refused(fmt.Errorf("behind what was listed of %s: %w", collection, ErrNotTheEnd))
		}
	}
	return nil
}

// guardKept refuses a change that takes something as read because the index holds it, if
// that is not so, or not any more.
func (r *repoRow) guardKept(c Change) error {
	if len(c.Kept) == 0 {
		return nil
	}
	pending, err := r.g.pendingPurges()
	if err != nil {
		return err
	}
	for _, collection := range c.Kept {
		if !r.repo.unchangedSince(collection, c.Reading.Host, c.Floor, c.Strict, pending) {
			return c.refused(fmt.Errorf("what is held of %s at %s: %w", collection, c.Floor, ErrUndone))
		}
	}
	return nil
}

// apply brings the index in line with a change.
func (r *repoRow) apply(c Change, a *Applied) error {
	for _, collection := range c.Kept {
		a.Tally.Records += r.repo.Collections[collection].Count
	}
	for _, collection := range c.shown() {
		if err := r.deleteAbsent(collection, c, a); err != nil {
			return err
		}
	}
	for _, seg := range c.Reading.Segments {
		seg, err := c.fresh(seg)
		if err != nil {
			return err
		}
		a.Fresh += len(seg.Records) + len(seg.Rejected)
		if err := r.putListed(seg, c.Reading, a); err != nil {
			return err
		}
	}
	if err := r.deleteNamed(c.Delete, a); err != nil {
		return err
	}
	if c.Account != "" {
		r.readAt(c.Reading.Host) // before anything is noted of what was assumed there
	}
	if len(c.Complete) > 0 {
		all := c.Before.total(*a)
		exact := c.Exact && !all.Guarded && all.Tally.Rejected == 0 && all.Tally.Records == r.count(c.Complete)
		if err := r.advanceFloor(c, exact); err != nil {
			return err
		}
	}
	return r.setAccount(c, a)
}

// fresh is a segment without what earlier steps have listed. What a step lists is marked.
func (c Change) fresh(seg Segment) (Segment, error) {
	if c.Step {
		return c.Marks.mark(c.DID, seg)
	}
	return c.Marks.unmarked(c.DID, seg)
}

// shown are the collections of which a change shows what is absent.
func (c Change) shown() []syntax.NSID {
	list := slices.AppendSeq(slices.Clone(c.Complete), maps.Keys(c.Confirmed))
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(name syntax.NSID) bool { return slices.Contains(c.Kept, name) })
}

// putListed puts what a segment lists, and counts it.
func (r *repoRow) putListed(seg Segment, read Reading, a *Applied) error {
	for _, l := range upward(seg.Records) {
		result, err := r.put(seg.Collection, l, read.Rev, read.Source)
		if err != nil {
			return err
		}
		switch result {
		case created:
			a.Tally.Created++
		case updated:
			a.Tally.Updated++
		case guarded:
			a.Guarded = true
		case unchanged:
		}
	}
	a.Tally.Records += int64(len(seg.Records))
	a.Tally.Rejected += int64(len(seg.Rejected))
	return nil
}

// upward gives records with the highest key last: the bucket grows by that, and the
// newest record is to be the one that was indexed last. Pages of listings come the
// other way round, whole repos do not.
func upward(list []Listed) iter.Seq2[int, Listed] {
	if len(list) > 0 && list[0].RKey < list[len(list)-1].RKey {
		return slices.All(list)
	}
	return slices.Backward(list)
}

// deleteNamed deletes records as of a rev above all that they may be at.
func (r *repoRow) deleteNamed(names map[syntax.NSID][]syntax.RecordKey, a *Applied) error {
	for c, keys := range names {
		for _, k := range keys {
			what, err := r.remove(c, k, LastRev)
			if err != nil {
				return err
			}
			a.note(what)
		}
	}
	return nil
}

// advanceFloor moves the floors of collections that were read completely, and notes whether
// the index now holds just what was read. Nothing is kept of a collection of which the
// index never held anything.
func (r *repoRow) advanceFloor(c Change, exact bool) error {
	if r.rid == 0 {
		return nil
	}
	r.repo.Floor = max(r.repo.Floor, c.Floor)
	for _, collection := range c.Complete {
		h, ok := r.repo.Collections[collection]
		if !ok || h.Floor > c.Floor || slices.Contains(c.Kept, collection) {
			continue
		}
		if err := r.dropTombstones(collection, c.Floor); err != nil {
			return err
		}
		h = r.repo.Collections[collection]
		h.Floor, h.Exact = c.Floor, ExactUnknown
		if exact && slices.Contains(c.Assumed, collection) {
			h.Exact = ExactAssumed
		} else if exact {
			h.Exact = ExactProved
		}
		r.repo.Collections[collection] = h
	}
	return nil
}

// count is how many records the index holds in some collections. If it is as many as
// were read, none was deleted since: all that it holds there was read.
func (r *repoRow) count(list []syntax.NSID) (n int64) {
	for _, c := range list {
		n += r.repo.Collections[c].Count
	}
	return n
}
