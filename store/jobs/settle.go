package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/kv"
)

// Save commits a part of a repo that is read in steps, with the position from
// which to go on. The position's tally is kept by the store. What is listed is marked,
// so that it counts once. It returns how many of the entries were not listed before. A part
// that would make the account too large is not written: index.ErrAccountFull.
func (s *Work) Save(ctx context.Context, seq uint64, did syntax.DID, r index.Reading, at Position) (int, error) {
	c := kv.Change{Op: "save pages of " + did.String(), Bytes: r.Bytes(), Urgent: true}
	step, err := write(ctx, s.file, c, func(g *group) (saved, error) { return g.saveStep(s.index, seq, did, r, at) })
	if err == nil {
		err = step.full
	}
	if err != nil {
		return 0, err
	}
	return step.fresh, nil
}

// saved is what a step has come to.
type saved struct {
	fresh int
	full  error // index.ErrAccountFull
}

func (g *group) saveStep(ix *index.Index, seq uint64, did syntax.DID, r index.Reading, at Position) (saved, error) {
	_, w, err := g.open(seq)
	if err != nil {
		return saved{}, err
	}
	o, err := w.owedAt(r.Host, did)
	if err != nil {
		return saved{}, err
	}
	if o.unmarked() {
		return saved{}, kv.Refuse(fmt.Errorf("save pages of %s: %w", did, index.ErrUndone))
	}
	at.Tally, at.Guarded, at.Marked = index.Tally{}, false, true
	if o.Position != nil {
		at.Tally, at.Guarded = o.Position.Tally, o.Position.Guarded
	}
	// The probe before the pages has said that the account is active. Whatever ends it from
	// here on is seen by the next step.
	a, err := ix.Apply(g.tx, index.Change{
		DID: did, Reading: r, Marks: w.marks, Step: true, Continues: o.continues(),
		Before: index.Applied{Tally: at.Tally, Guarded: at.Guarded}, Account: index.AccountActive,
	})
	if errors.Is(err, index.ErrAccountFull) {
		full := fmt.Errorf("save pages of %s: %w", did, err)
		_, err := ix.Apply(g.tx, index.Change{DID: did, Account: index.AccountActive}) // what is held is served all the same
		return saved{full: full}, err
	}
	if err != nil {
		return saved{}, err
	}
	at.Tally.Add(a.Tally)
	at.Guarded = at.Guarded || a.Guarded
	// The repo gets on: what went wrong before does not count any more.
	o = Owed{
		DID: did, Host: o.Host, Moved: o.Moved, Again: o.Again, Position: &at, Carry: o.Carry,
	}
	return saved{fresh: a.Fresh}, w.putOwed(o)
}

// continues reports whether earlier steps of the repo's reading are in the index.
func (o Owed) continues() bool { return o.Position != nil && len(o.Position.Read) > 0 }

// unmarked reports whether what earlier steps of the repo's reading listed is not marked.
func (o Owed) unmarked() bool { return o.continues() && !o.Position.Marked }

// Restart forgets how far a repo was read, for a new pass over it. What earlier
// passes changed in the index still counts as changed.
func (s *Work) Restart(ctx context.Context, seq uint64, host string, did syntax.DID, at Position) error {
	return s.do(ctx, kv.Change{Op: "read again " + did.String(), Bytes: 256, Urgent: true}, func(g *group) error {
		_, w, err := g.open(seq)
		if err != nil {
			return err
		}
		o, err := w.owedAt(host, did)
		if err != nil {
			return err
		}
		at := at
		if o.Position != nil {
			at.Tally = changedOnly(o.Position.Tally)
		}
		if err := w.marks.Forget(did); err != nil {
			return err
		}
		o.Position, o.Spent, o.Reached = &at, 0, 0 // what was spent is in the position
		return w.putOwed(o)
	})
}

// changedOnly is what a tally says of changes of the index.
func changedOnly(t index.Tally) index.Tally {
	return index.Tally{Created: t.Created, Updated: t.Updated, Deleted: t.Deleted}
}

// Settlement is the end of one repo in a job.
type Settlement struct {
	DID      syntax.DID
	Reading  index.Reading // the last, or the whole, of what was read
	Attempts int
	Complete []syntax.NSID // collections that were listed from end to end: what they did not name is deleted
	Kept     []syntax.NSID // of these, those that were not listed, since they are held as they were at Floor
	// Confirmed are, by collection, records that a listing did not name and its host says
	// are not there. Of the collections in it, complete or not, nothing else is deleted.
	Confirmed map[syntax.NSID][]syntax.RecordKey
	Floor     syntax.TID // the probe before the first page: the floor of the complete ones
	Exact     bool       // all of it was seen at one rev
	Rejected  int64      // what stands in no segment of the reading, since no record can be addressed by it
	Short     ShortPages // what was learnt of the host by the way
	Account   string     // the host's word on the account; empty: not known
	Inferred  bool       // index.AccountNotFound is nobody's word: it hides, and is not counted
	Purge     bool       // the account is gone for good: nothing of it stays

	// Verdict is what the repo ends as. Without a class it is judged by what it was found to
	// hold, once that is written.
	Verdict        Verdict
	RejectedDetail string // says of what is rejected what it is

	begun bool // some of it was done in a transaction before
}

// Settle puts a repo into its class for good, in one transaction with its
// records, its counts and the job's counters. done is told the outcome after the
// commit, and must not wait for anything: ErrStale when the repo was no longer
// owed there, index.ErrRevWentBack when the index holds something newer, index.ErrNotTheEnd
// when an end was assumed that must not be, index.ErrUndone when the account has changed since
// an earlier step, or what was to be kept is not held any more. A reading that would make the
// account too large is settled as failed: nothing of it is written, and nothing deleted.
func (s *Work) Settle(ctx context.Context, seq uint64, t Settlement, done func(error)) error {
	c := kv.Change{Op: "settle " + t.DID.String(), Bytes: t.Reading.Bytes(), Done: done}
	return s.submit(ctx, c, func(g *group) error {
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		o, err := w.owedAt(t.Reading.Host, t.DID)
		if err != nil {
			return err
		}
		if s.index.Denied(t.DID, o.Host) {
			t = t.denied()
		}
		err = g.settle(s.index, j, w, o, t)
		t.begun = errors.Is(err, kv.ErrAgain)
		return err
	})
}

// settle applies a settlement to the index, and closes the repo in its job.
func (g *group) settle(ix *index.Index, j *Job, w *workBuckets, o Owed, t Settlement) error {
	if t.Account == index.AccountActive && o.unmarked() {
		return kv.Refuse(fmt.Errorf("settle %s: %w", t.DID, index.ErrUndone))
	}
	if t.Short.Unprobed && isDistrusted(g.tx, o.Host) {
		return kv.Refuse(fmt.Errorf("settle %s: its account was not asked for: %w", t.DID, index.ErrNotTheEnd))
	}
	before := index.Applied{Tally: o.Carry}
	if o.Position != nil {
		before.Tally.Add(o.Position.Tally)
		before.Guarded = o.Position.Guarded
	}
	a, err := ix.Apply(g.tx, t.change(g, w, o, before))
	if errors.Is(err, index.ErrAccountFull) {
		t = t.tooLarge(err)
		a, err = ix.Apply(g.tx, t.change(g, w, o, before))
	}
	if errors.Is(err, kv.ErrAgain) {
		o.Carry.Add(changedOnly(a.Tally))
		if err := w.putOwed(o); err != nil {
			return err
		}
		return kv.ErrAgain
	}
	if err != nil {
		return err
	}
	tally := before.Tally
	tally.Add(a.Tally)
	tally.Rejected += t.Rejected
	return g.finish(j, w, o, t, WorkRepo{Tally: tally, Assumed: a.Assumed || t.Short.Unprobed, Unprobed: t.Short.Unprobed}, t.verdict(tally, before.Guarded || a.Guarded))
}

// change is what a settlement is to the index.
func (t Settlement) change(g *group, w *workBuckets, o Owed, before index.Applied) index.Change {
	before.Tally.Rejected += t.Rejected
	return index.Change{
		DID: t.DID, Reading: t.Reading, Marks: w.marks, Continues: o.continues(), Before: before, Begun: t.begun,
		Complete: t.Complete, Kept: t.Kept, Confirmed: t.Confirmed, Floor: t.Floor, Exact: t.Exact,
		Assumed: t.Short.Assumed, Strict: isDistrusted(g.tx, t.Reading.Host),
		Account: t.Account, Inferred: t.Inferred, Purge: t.Purge,
	}
}

// denied is the settlement in place of t of a repo that was denied while it was
// read.
func (t Settlement) denied() Settlement {
	return Settlement{
		DID: t.DID, Attempts: t.Attempts, Reading: index.Reading{Host: t.Reading.Host}, Account: index.AccountDenied, Purge: true,
		Verdict: Verdict{Class: ClassUnavailable, Reason: index.AccountDenied},
		begun:   t.begun,
	}
}

// tooLarge is the settlement in place of t of a repo whose account is full: nothing of the
// reading is written, and it shows nothing to be absent. The host's word on the account
// counts, so that what is held is served.
func (t Settlement) tooLarge(why error) Settlement {
	return Settlement{
		DID: t.DID, Attempts: t.Attempts, Reading: index.Reading{Host: t.Reading.Host}, Account: t.Account,
		Verdict: Verdict{Class: ClassFailed, Reason: ReasonTooLarge, Detail: why.Error()},
	}
}

// finish moves the repo's rows and the job's counters to the settled state: now is the
// row, as far as it says what was read.
func (g *group) finish(j *Job, w *workBuckets, o Owed, t Settlement, now WorkRepo, v Verdict) error {
	if err := w.owed.Delete(owedKey(o.Host, t.DID)); err != nil {
		return err
	}
	if err := w.marks.Forget(t.DID); err != nil {
		return err
	}
	if o.Host == "" {
		j.Unresolved--
	}
	was, err := w.row(o)
	if err != nil {
		return err
	}
	if was.Class == ClassFailed {
		v = Verdict{Class: was.Class, Reason: was.Reason, Detail: was.Detail} // the number of these never goes back
	}
	now.State, now.Host, now.Attempts, now.Rev = RepoSettled, o.Host, t.Attempts, t.Reading.Rev
	now.Class, now.Reason, now.Detail = v.Class, v.Reason, v.Detail
	now.Tally = readAnew(now.Tally, was.Tally)
	if err := errors.Join(g.tally(j, was, -1), g.tally(j, now, 1), g.recordHostBehaviour(j, t)); err != nil {
		return err
	}
	j.work()
	return workRepos.Put(w.repos, []byte(t.DID), now)
}

// SettleHost gives up all repos that a job still owes at a host, in bounded
// steps. It returns how many a step settled.
func (s *Work) SettleHost(ctx context.Context, seq uint64, host string, v Verdict) (int, error) {
	return write(ctx, s.file, urgent("give up host "+host), func(g *group) (int, error) {
		j, w, err := g.open(seq)
		if err != nil {
			return 0, err
		}
		rows, err := w.queue(host, "", g.tx.Bound(kv.MaxGroup))
		if err != nil {
			return 0, err
		}
		for _, o := range rows {
			tally := o.Carry
			if o.Position != nil {
				tally.Add(o.Position.Tally)
			}
			t := Settlement{DID: o.DID, Attempts: o.Attempts, Reading: index.Reading{Host: host}}
			if err := g.finish(j, w, o, t, WorkRepo{Tally: tally}, v); err != nil {
				return 0, err
			}
		}
		return len(rows), nil
	})
}
