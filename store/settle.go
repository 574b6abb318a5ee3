package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// ErrRevWentBack says that a host answered with a rev below one at which the
// repo was already read completely.
var ErrRevWentBack = errors.New("the host's rev is older than what the index holds")

// ErrUndone says that the account has ended, or has come back, since what is gone on
// with was begun, so that what that brought may be deleted, or what it deleted be there
// again; or that what was to be kept is not held any more. The repo is to be read anew.
var ErrUndone = errors.New("what the index holds of the account is not what it was when this was begun")

// notFoundTwice is how far apart an account must be not found twice, each time in so many
// words, for its records to be purged.
const notFoundTwice = 7 * 24 * time.Hour

// Segment is a part of one collection's listing, in any order. It names each key once;
// earlier parts may have named it too.
type Segment struct {
	Collection syntax.NSID
	Records    []Listed
	Rejected   []syntax.RecordKey // listed, but not what they claim to be: they count as present. Each empty one counts
}

// Reading is what was read of one repo since the last commit about it.
type Reading struct {
	Host     string     // the queue that it is in
	Rev      syntax.TID // the latest probe before the pages
	Source   Source
	Segments []Segment
}

// Segment is what a reading has listed of a collection.
func (r Reading) Segment(c syntax.NSID) Segment {
	all := Segment{Collection: c}
	for _, s := range r.Segments {
		switch {
		case s.Collection != c:
		case all.Records == nil && all.Rejected == nil:
			all = s
		default:
			all.Records, all.Rejected = slices.Concat(all.Records, s.Records), slices.Concat(all.Rejected, s.Rejected)
		}
	}
	return all
}

// bytes estimates what a reading brings into the transaction.
func (r Reading) bytes() int {
	n := 256
	for _, s := range r.Segments {
		for _, l := range s.Records {
			n += len(l.Body.Data) + rowCID + 64
		}
	}
	return n
}

// Save commits a part of a repo that is read in steps, with the position from
// which to go on. The position's tally is kept by the store. What is listed is marked,
// so that it counts once. It returns how many of the entries were not listed before. A part
// that would make the account too large is not written: ErrAccountFull.
func (s *Store) Save(ctx context.Context, seq uint64, did syntax.DID, r Reading, at Position) (int, error) {
	// Both are the writer's, unless the commit has succeeded: it may still be going on when ctx ends.
	fresh, full := 0, error(nil)
	err := s.wait(ctx, change{op: "save pages of " + did.String(), bytes: r.bytes(), urgent: true, apply: func(g *group) error {
		fresh, full = 0, nil
		_, w, err := g.open(seq)
		if err != nil {
			return err
		}
		o, err := w.owedAt(r.Host, did)
		if err != nil {
			return err
		}
		repo, err := g.repo(did)
		if err != nil {
			return err
		}
		if s.Denied(did, r.Host) {
			return refuse(fmt.Errorf("save pages of %s: %w", did, ErrDenied))
		}
		if repo.repo.Floor > r.Rev {
			return refuse(fmt.Errorf("%s at %s, read before at %s: %w", did, r.Rev, repo.repo.Floor, ErrRevWentBack))
		}
		if o.undone(repo) {
			return refuse(fmt.Errorf("save pages of %s: %w", did, ErrUndone))
		}
		at := at
		at.Tally, at.Guarded, at.Marked = Tally{}, false, true
		if o.Position != nil {
			at.Tally, at.Guarded = o.Position.Tally, o.Position.Guarded
		}
		// The probe before the pages has said so. Whatever ends the account from here on
		// is seen by the next step.
		repo.repo.Account, repo.repo.NotFoundAt = AccountActive, time.Time{}
		if err := repo.fits(w, r, rejectedBytes(at.Tally, r), s.maxAccountBytes); errors.Is(err, ErrAccountFull) {
			full = err
			return repo.save() // what is held is served all the same
		} else if err != nil {
			return err
		}
		for _, seg := range r.Segments {
			seg, err := w.mark(did, seg)
			if err != nil {
				return err
			}
			fresh += len(seg.Records) + len(seg.Rejected)
			guarded, err := repo.apply(seg, r, &at.Tally)
			if err != nil {
				return err
			}
			at.Guarded = at.Guarded || guarded
		}
		repo.readAt(r.Host)
		if err := repo.save(); err != nil {
			return err
		}
		// The repo gets on: what went wrong before does not count any more.
		o = Owed{
			DID: did, Host: o.Host, Moved: o.Moved, Again: o.Again, Position: &at, Carry: o.Carry,
		}
		return w.putOwed(o)
	}})
	if err == nil && full != nil {
		err = fmt.Errorf("save pages of %s: %w", did, full)
	}
	if err != nil {
		return 0, err
	}
	return fresh, nil
}

// undone reports whether what earlier steps of a reading brought may be deleted, or what
// they listed is not marked.
func (o Owed) undone(r *repoRow) bool {
	return o.Position != nil && len(o.Position.Read) > 0 && (!r.repo.Active() || !o.Position.Marked)
}

// Restart forgets how far a repo was read, for a new pass over it. What earlier
// passes changed in the index still counts as changed.
func (s *Store) Restart(ctx context.Context, seq uint64, host string, did syntax.DID, at Position) error {
	return s.wait(ctx, change{op: "read again " + did.String(), bytes: 256, urgent: true, apply: func(g *group) error {
		_, w, err := g.open(seq)
		if err != nil {
			return err
		}
		o, err := w.owedAt(host, did)
		if err != nil {
			return err
		}
		if o.Position != nil {
			at.Tally = Tally{
				Created: o.Position.Tally.Created, Updated: o.Position.Tally.Updated, Deleted: o.Position.Tally.Deleted,
			}
		}
		if err := w.forget(did); err != nil {
			return err
		}
		o.Position, o.Spent, o.Reached = &at, 0, 0 // what was spent is in the position
		return w.putOwed(o)
	}})
}

// Settlement is the end of one repo in a job.
type Settlement struct {
	DID      syntax.DID
	Reading  Reading // the last, or the whole, of what was read
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
	Inferred  bool       // AccountNotFound is nobody's word: it hides, and is not counted
	Purge     bool       // the account is gone for good: nothing of it stays

	// Verdict is what the repo ends as. Without a class it is judged by what it was found to
	// hold, once that is written.
	Verdict        Verdict
	RejectedDetail string // says of what is rejected what it is

	begun bool  // some of it was done in a transaction before
	most  int64 // bytes that the account may take
}

// Settle puts a repo into its class for good, in one transaction with its
// records, its counts and the job's counters. done is told the outcome after the
// commit, and must not wait for anything: ErrStale when the repo was no longer
// owed there, ErrRevWentBack when the index holds something newer, ErrNotTheEnd
// when an end was assumed that must not be, ErrUndone when the account has changed since an
// earlier step, or what was to be kept is not held any more. A reading that would make the
// account too large is settled as failed: nothing of it is written, and nothing deleted.
func (s *Store) Settle(ctx context.Context, seq uint64, t Settlement, done func(error)) error {
	return s.submit(ctx, change{op: "settle " + t.DID.String(), bytes: t.Reading.bytes(), done: done, apply: func(g *group) error {
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		o, err := w.owedAt(t.Reading.Host, t.DID)
		if err != nil {
			return err
		}
		if s.Denied(t.DID, o.Host) {
			t = t.denied()
		}
		t.most = s.maxAccountBytes
		if t.begun {
			if err := g.overtaken(t); err != nil {
				return err
			}
		}
		err = g.settle(j, w, o, t)
		t.begun = errors.Is(err, errAgain)
		return err
	}})
}

// denied is the settlement in place of t of a repo that was denied while it was
// read.
func (t Settlement) denied() Settlement {
	return Settlement{
		DID: t.DID, Attempts: t.Attempts, Reading: Reading{Host: t.Reading.Host}, Account: AccountDenied, Purge: true,
		Verdict: Verdict{Class: ClassUnavailable, Reason: AccountDenied},
		begun:   t.begun,
	}
}

// overtaken refuses to go on with the end of an account of which something else was
// committed meanwhile: what came after its end must not be deleted with the rest.
func (g *group) overtaken(t Settlement) error {
	if t.Account == "" || t.Account == AccountActive {
		return nil // the rev of the reading guards what is newer
	}
	repo, err := g.repo(t.DID)
	if err == nil && repo.repo.Account != t.Account {
		err = refuse(fmt.Errorf("settle %s as %s: %w", t.DID, t.Account, ErrUndone))
	}
	return err
}

func (g *group) settle(j *Job, w *workBuckets, o Owed, t Settlement) error {
	if err := g.checkAssumedEnds(w, t); err != nil {
		return err
	}
	repo, err := g.repo(t.DID)
	if err != nil {
		return err
	}
	rev := t.Reading.Rev
	if rev != "" && repo.repo.Floor > rev {
		return refuse(fmt.Errorf("%s at %s, read before at %s: %w", t.DID, rev, repo.repo.Floor, ErrRevWentBack))
	}
	if t.Account == AccountActive && o.undone(repo) {
		return refuse(fmt.Errorf("settle %s: %w", t.DID, ErrUndone))
	}
	if !t.begun {
		if err := repo.fits(w, t.Reading, 0, t.most); errors.Is(err, ErrAccountFull) {
			t = t.tooLarge(err)
		} else if err != nil {
			return err
		}
	}
	tally, guarded := o.Carry, false
	if o.Position != nil {
		tally.add(o.Position.Tally)
		guarded = o.Position.Guarded
	}
	tally.Rejected += t.Rejected
	before := tally
	t.Exact = t.Exact && !guarded
	held, err := g.apply(w, repo, t, &tally)
	guarded = guarded || held
	if errors.Is(err, errAgain) {
		o.Carry.add(Tally{
			Created: tally.Created - before.Created, Updated: tally.Updated - before.Updated, Deleted: tally.Deleted - before.Deleted,
		})
		if err := errors.Join(repo.save(), w.putOwed(o)); err != nil {
			return err
		}
		return errAgain
	}
	if err != nil {
		return err
	}
	if err := repo.save(); err != nil {
		return err
	}
	return g.finish(j, w, o, t, WorkRepo{Tally: tally, Assumed: repo.assumes(t)}, t.verdict(tally, guarded))
}

// apply brings the index in line with a settlement. It reports whether the index
// kept something newer.
func (g *group) apply(w *workBuckets, repo *repoRow, t Settlement, tally *Tally) (guarded bool, err error) {
	if err := repo.keep(t, tally); err != nil {
		return false, err
	}
	for _, c := range t.shown() {
		held, err := repo.deleteAbsent(w, c, t, tally)
		guarded = guarded || held
		if err != nil {
			return guarded, err
		}
	}
	for _, seg := range t.Reading.Segments {
		seg, err := w.unmarked(t.DID, seg)
		if err != nil {
			return guarded, err
		}
		held, err := repo.apply(seg, t.Reading, tally)
		if err != nil {
			return guarded, err
		}
		guarded = guarded || held
	}
	if t.Account != "" {
		repo.readAt(t.Reading.Host) // before anything is noted of what was assumed there
	}
	if len(t.Complete) > 0 {
		repo.advanceFloor(t, t.Exact && !guarded && tally.Rejected == 0 && tally.Records == repo.count(t.Complete))
	}
	return guarded, repo.account(t, tally, g.steady)
}

// shown are the collections of which a settlement shows what is absent.
func (t Settlement) shown() []syntax.NSID {
	list := slices.AppendSeq(slices.Clone(t.Complete), maps.Keys(t.Confirmed))
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(c syntax.NSID) bool { return slices.Contains(t.Kept, c) })
}

// advanceFloor moves the floors of collections that were read completely, and notes whether
// the index now holds just what was read. Nothing is kept of a collection of which the
// index never held anything.
func (r *repoRow) advanceFloor(t Settlement, exact bool) {
	if r.rid == 0 {
		return
	}
	r.repo.Floor = max(r.repo.Floor, t.Floor)
	for _, c := range t.Complete {
		h, ok := r.repo.Collections[c]
		if !ok || h.Floor > t.Floor || slices.Contains(t.Kept, c) {
			continue
		}
		h.Floor, h.Exact = t.Floor, ExactUnknown
		if exact && slices.Contains(t.Short.Assumed, c) {
			h.Exact = ExactAssumed
		} else if exact {
			h.Exact = ExactProved
		}
		r.repo.Collections[c] = h
	}
}

// count is how many records the index holds in some collections. If it is as many as
// were read, none was deleted since: all that it holds there was read.
func (r *repoRow) count(list []syntax.NSID) (n int64) {
	for _, c := range list {
		n += r.repo.Collections[c].Count
	}
	return n
}

// finish moves the repo's rows and the job's counters to the settled state: now is the
// row, as far as it says what was read.
func (g *group) finish(j *Job, w *workBuckets, o Owed, t Settlement, now WorkRepo, v Verdict) error {
	if err := w.owed.Delete(owedKey(o.Host, t.DID)); err != nil {
		return err
	}
	if err := w.forget(t.DID); err != nil {
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
	now.Tally = now.Tally.after(was.Tally)
	if err := errors.Join(g.tally(j, was, -1), g.tally(j, now, 1), g.recordHostBehaviour(j, t)); err != nil {
		return err
	}
	j.work()
	return workRepos.put(w.repos, []byte(t.DID), now)
}

// SettleHost gives up all repos that a job still owes at a host, in bounded
// steps. It returns how many a step settled.
func (s *Store) SettleHost(ctx context.Context, seq uint64, host string, v Verdict) (int, error) {
	var settled int
	err := s.wait(ctx, change{op: "give up host " + host, urgent: true, apply: func(g *group) error {
		settled = 0
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		var rows []Owed
		c := w.owed.Cursor()
		for k, row := c.Seek(owedKey(host, "")); k != nil && len(rows) < g.bound(kv.MaxGroup); k, row = c.Next() {
			h, did, _ := splitOwedKey(k)
			if h != host {
				break
			}
			o, err := owedRows.decode(k, row)
			if err != nil {
				return fmt.Errorf("queue row %q: %w", k, err)
			}
			o.Host, o.DID = h, did
			rows = append(rows, o)
		}
		for _, o := range rows {
			t := Settlement{
				DID: o.DID, Attempts: o.Attempts, Reading: Reading{Host: host}, Verdict: v,
			}
			if err := g.settle(j, w, o, t); err != nil {
				return err
			}
		}
		settled = len(rows)
		return nil
	}})
	if err != nil {
		return 0, err
	}
	return settled, nil
}

// apply puts what a segment lists, and counts it. It reports whether the guard kept
// anything that is newer than the reading.
func (r *repoRow) apply(seg Segment, read Reading, tally *Tally) (guards bool, err error) {
	for _, l := range upward(seg.Records) {
		result, err := r.put(seg.Collection, l, read.Rev, read.Source)
		if err != nil {
			return false, err
		}
		switch result {
		case created:
			tally.Created++
		case updated:
			tally.Updated++
		case guarded:
			guards = true
		case unchanged:
		}
	}
	tally.Records += int64(len(seg.Records))
	tally.Rejected += int64(len(seg.Rejected))
	return guards, nil
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

// account notes what is known of the account, and purges what must not stay.
func (r *repoRow) account(t Settlement, tally *Tally, steady time.Time) error {
	if t.Account == "" || r.rid == 0 {
		return nil
	}
	purge := t.Purge
	switch {
	case t.Account == AccountNotFound && t.Inferred:
	case t.Account == AccountNotFound && r.repo.NotFoundAt.IsZero():
		r.repo.NotFoundAt = steady
	case t.Account == AccountNotFound:
		purge = purge || steady.Sub(r.repo.NotFoundAt) >= notFoundTwice
	default:
		r.repo.NotFoundAt = time.Time{}
	}
	r.repo.Account = t.Account
	if !purge {
		return nil
	}
	return r.purge(tally)
}

// readAt notes the host at which the repo was read, so that a denial of the host finds
// what came from there. Nothing is kept of a repo without a number. What was assumed of
// another host cannot be looked up any more: it is not known from here on.
func (r *repoRow) readAt(host string) {
	if r.rid == 0 || host == "" || host == r.repo.Host {
		return
	}
	r.repo.Host = host
	for c, h := range r.repo.Collections {
		if h.Exact == ExactAssumed {
			h.Exact = ExactUnknown
			r.repo.Collections[c] = h
		}
	}
}
