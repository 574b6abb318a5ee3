package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"
)

// ErrStale says that a change was made for work that is no longer there: the repo
// was settled or moved in the meantime, or the job is final.
var ErrStale = errors.New("no longer owed")

// Owed is one repo in the queue of a job: what is still to be read of it.
type Owed struct {
	DID       syntax.DID `json:"-"`
	Host      string     `json:"-"`                   // empty: to be looked up
	Attempts  int        `json:"attempts,omitempty"`  // that failed since it last got on
	NotBefore time.Time  `json:"not_before,omitzero"` // of the next attempt
	LimitedAt time.Time  `json:"limited_at,omitzero"` // since when somebody on its way has answered nothing but "slow down"
	Reason    string     `json:"reason,omitempty"`    // of the last failure
	Detail    string     `json:"detail,omitempty"`    // the same in words
	Reached   int        `json:"reached,omitempty"`   // pages of it that a failed attempt has had since it last got on
	Moved     bool       `json:"moved,omitempty"`     // it was found at another host once
	Again     bool       `json:"again,omitempty"`     // it was settled, is counted as that, and is to be read anew
	Position  *Position  `json:"position,omitempty"`  // of a repo read in steps
	Carry     Tally      `json:"carry,omitzero"`      // what a settlement too large for one transaction has changed so far
	Proofs    int        `json:"proofs,omitempty"`    // of single records that its host was asked for, before Position

	// Spent is how long failed attempts have read it since it last got on. What was
	// spent before is the position's.
	Spent time.Duration `json:"spent,omitempty"`
}

// Position is how far a repo that is too large to be read at once has been read.
// The store keeps Marked, Tally and Guarded; the rest is the reader's.
type Position struct {
	First   syntax.TID               `json:"first,omitzero"`  // rev when this pass began
	Pass    int                      `json:"pass,omitempty"`  // passes begun before this one
	Whole   bool                     `json:"whole,omitempty"` // it is being read in one piece: Read says nothing
	Pages   int                      `json:"pages,omitempty"`
	Bytes   int64                    `json:"bytes,omitempty"`
	Spent   time.Duration            `json:"spent,omitempty"`   // on reading it, over all passes and attempts
	Proofs  int                      `json:"proofs,omitempty"`  // of single records that its host was asked for, likewise
	Read    map[syntax.NSID]ReadUpTo `json:"read"`              // by collection
	More    bool                     `json:"more,omitempty"`    // a short page of this pass had more behind it
	Tally   Tally                    `json:"tally,omitzero"`    // of this pass so far
	Guarded bool                     `json:"guarded,omitempty"` // the index kept something newer
	Marked  bool                     `json:"marked,omitempty"`  // what it has listed is marked, as it was not before format 9
}

// ReadUpTo is how far one collection has been listed.
type ReadUpTo struct {
	Cursor  string           `json:"cursor,omitempty"`
	Last    syntax.RecordKey `json:"last,omitempty"`    // the last key listed
	Order   Order            `json:"order,omitempty"`   // of the keys so far
	Done    bool             `json:"done,omitempty"`    // to its end
	Assumed bool             `json:"assumed,omitempty"` // that is, to a short page that was taken for it
	Kept    bool             `json:"kept,omitempty"`    // it is not listed: the index holds it as of First
	Partial bool             `json:"partial,omitempty"` // with entries that may stand for any record: nothing is absent
	Broken  string           `json:"broken,omitempty"`  // why its end was not found: likewise
}

// RepoState is where a repo stands in a job.
type RepoState string

// The states of a repo in a job.
const (
	RepoFound   RepoState = "found"   // its host is not known yet
	RepoOwed    RepoState = "owed"    // in the queue of its host
	RepoSettled RepoState = "settled" // in its class
)

// WorkRepo is a discovered repo of a job. The row stays where it is until the
// job is forgotten. One that is owed and has a class was settled, is counted as
// that, and is to be read anew (Reopen).
type WorkRepo struct {
	State    RepoState  `json:"state"`
	Host     string     `json:"host,omitempty"`
	Class    string     `json:"class,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Detail   string     `json:"detail,omitempty"`
	Attempts int        `json:"attempts,omitempty"`
	Rev      syntax.TID `json:"rev,omitzero"`
	Tally    Tally      `json:"tally,omitzero"`
	Assumed  bool       `json:"assumed,omitempty"` // settled with a short page taken for the end of a listing
}

// Cursor is how far a listing has been read.
type Cursor struct {
	Cursor string `json:"cursor,omitempty"`
	Pages  int64  `json:"pages,omitempty"`
	Done   bool   `json:"done,omitempty"`
	Relay  string `json:"relay,omitempty"` // that gave it; empty: not a relay's, or not noted
}

// HostWork is what a job knows of a host: what it has found there, which the store
// counts, and how the host behaves, which PutHost notes.
type HostWork struct {
	Total     int64 `json:"total,omitempty"`     // repos that live there
	Completed int64 `json:"completed,omitempty"` // of these, settled as done or unavailable
	Failed    int64 `json:"failed,omitempty"`    // of these, given up
	Records   int64 `json:"records,omitempty"`   // of the settled ones
	Assumed   int64 `json:"assumed,omitempty"`   // of the settled ones, with a short page taken for the end of a listing
	Again     int64 `json:"again,omitempty"`     // counted as settled, and to be read anew

	Ends       int `json:"ends,omitempty"`        // short pages that were followed and were the end
	LongestEnd int `json:"longest_end,omitempty"` // records on the longest of these

	Behaviour
}

// Left is how many repos the job still owes at the host.
func (h HostWork) Left() int64 { return h.Total - h.Completed - h.Failed + h.Again }

// count adds n times a repo.
func (h *HostWork) count(r WorkRepo, n int64) {
	h.Total += n
	h.Records += n * r.Tally.Records
	switch r.Class {
	case "":
		return
	case ClassFailed:
		h.Failed += n
	default:
		h.Completed += n
	}
	if r.State == RepoOwed {
		h.Again += n
	}
	if r.Assumed {
		h.Assumed += n
	}
}

// Behaviour is how a host has behaved towards a job.
type Behaviour struct {
	Probes    int       `json:"probes,omitempty"` // in a row that found it down
	NextProbe time.Time `json:"next_probe,omitzero"`
	LimitedAt time.Time `json:"limited_at,omitzero"` // since when it has answered nothing but "slow down"
	Error     string    `json:"error,omitempty"`     // the last
}

var (
	workRepos = table[WorkRepo]{name: workReposBucket, version: 1, fill: fillSpread}
	owedRows  = table[Owed]{name: owedBucket, version: 1, fill: fillSpread}
	cursors   = table[Cursor]{name: cursorBucket, version: 1, fill: fillSpread}
	hostRows  = table[HostWork]{name: hostsBucket, version: 1, fill: fillSpread}
)

// workBuckets are the buckets of one job's work.
type workBuckets struct {
	repos, owed, cursors, hosts, listed *bbolt.Bucket

	changed map[string]*HostWork // rows of hosts, until the group ends
}

// workOf is the work of a job. It fails with ErrNotFound when that is forgotten, or
// about to be: the cursors go first.
func workOf(tx *bbolt.Tx, seq uint64) (*workBuckets, error) {
	b := tx.Bucket([]byte(workBucket)).Bucket(u64Key(seq))
	if b == nil || b.Bucket([]byte(cursorBucket)) == nil {
		return nil, fmt.Errorf("work of job %d: %w", seq, ErrNotFound)
	}
	w := &workBuckets{
		repos: b.Bucket([]byte(workReposBucket)), owed: b.Bucket([]byte(owedBucket)),
		cursors: b.Bucket([]byte(cursorBucket)), hosts: b.Bucket([]byte(hostsBucket)), listed: b.Bucket([]byte(listedBucket)),
	}
	for _, b := range []*bbolt.Bucket{w.repos, w.owed, w.cursors, w.hosts, w.listed} {
		if b == nil {
			return nil, fmt.Errorf("%w: work of job %d lacks a bucket", errRow, seq)
		}
		b.FillPercent = fillSpread
	}
	return w, nil
}

// open returns a job that is still worked on, with its work. Anything brought
// for a final job is dropped.
func (g *group) open(seq uint64) (*Job, *workBuckets, error) {
	j, err := g.job(seq)
	if err != nil {
		return nil, nil, err
	}
	if j.Status.Final() {
		return nil, nil, refuse(fmt.Errorf("job %s is %s: %w", j.ID, j.Status, ErrStale))
	}
	w, err := g.workOf(seq)
	return j, w, err
}

// workOf returns the work of a job, with what the group has changed in it.
func (g *group) workOf(seq uint64) (*workBuckets, error) {
	if w := g.work[seq]; w != nil {
		return w, nil
	}
	w, err := workOf(g.tx, seq)
	if err == nil {
		g.work[seq] = w
	}
	return w, err
}

// owed returns the queue row of a repo at the host where the caller found it.
func (w *workBuckets) owedAt(host string, did syntax.DID) (Owed, error) {
	o, err := owedRows.get(w.owed, owedKey(host, did))
	if errors.Is(err, ErrNotFound) {
		return o, refuse(fmt.Errorf("%s at %q: %w", did, host, ErrStale))
	}
	o.Host, o.DID = host, did
	return o, err
}

func (w *workBuckets) putOwed(o Owed) error {
	return owedRows.put(w.owed, owedKey(o.Host, o.DID), o)
}

// Discovery is what one page of a listing brought.
type Discovery struct {
	Listing string // the collection, or another name of the listing
	DIDs    []syntax.DID
	Cursor  Cursor
}

// Discover commits a page of a listing: its new repos, their number and the
// cursor behind it. It returns how many were new.
func (s *Store) Discover(ctx context.Context, seq uint64, d Discovery) (int, error) {
	var added int
	err := s.wait(ctx, change{op: "discover", urgent: true, apply: func(g *group) error {
		added = 0
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		if added, err = g.discover(j, w, d.DIDs); err != nil {
			return err
		}
		return cursors.put(w.cursors, []byte(d.Listing), d.Cursor)
	}})
	if err != nil {
		return 0, err
	}
	return added, nil
}

// discover adds repos to a job, but for those that it has found before, or that were
// done in a job that it carries on.
func (g *group) discover(j *Job, w *workBuckets, dids []syntax.DID) (added int, err error) {
	j.Listed = true
	carriedOn, err := g.carriedOn(j)
	if err != nil {
		return 0, err
	}
	for _, did := range dids {
		if w.repos.Get([]byte(did)) != nil {
			continue
		}
		if done, err := doneBefore(g.tx, carriedOn, did); done || err != nil {
			if err != nil {
				return added, err
			}
			continue
		}
		if err := workRepos.put(w.repos, []byte(did), WorkRepo{State: RepoFound}); err != nil {
			return added, err
		}
		if err := w.putOwed(Owed{DID: did}); err != nil {
			return added, err
		}
		added++
	}
	j.TotalRepos += int64(added)
	j.Unresolved += int64(added)
	return added, nil
}

// heldStep bounds the repos looked at in one transaction of DiscoverHeld.
const heldStep = 10_000

// heldListing is the name of the cursor over the repos that the index holds: the
// number of the next repo, in decimal.
const heldListing = "\x00held"

// DiscoverHeld adds the repos of which the index holds records of the job's
// targets, whether a listing named them or not, a bounded step at a time. It
// returns true when all have been looked at.
//
// Listings drop repos that were emptied or are inactive. Their records must not
// stay for ever.
func (s *Store) DiscoverHeld(ctx context.Context, seq uint64) (bool, error) {
	var done bool
	err := s.wait(ctx, change{op: "discover held repos", urgent: true, apply: func(g *group) error {
		done = false
		j, w, err := g.open(seq)
		if err != nil {
			return err
		}
		at, err := cursors.get(w.cursors, []byte(heldListing))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if at.Done {
			done = true
			return nil
		}
		var dids []syntax.DID
		cur, steps := repos.bucket(g.tx).Cursor(), 0
		from, err := strconv.ParseUint("0"+at.Cursor, 10, 32)
		if err != nil {
			return fmt.Errorf("%w: cursor over held repos: %w", errRow, err)
		}
		k, row := cur.Seek(ridKey(rid(from)))
		for ; k != nil && steps < g.bound(heldStep); k, row = cur.Next() {
			repo, err := repos.decode(k, row)
			if err != nil {
				return fmt.Errorf("repo %x: %w", k, err)
			}
			if repo.holds(j.Targets) {
				dids = append(dids, repo.DID)
			}
			steps++
		}
		at = Cursor{Pages: at.Pages + 1, Done: k == nil}
		if k != nil {
			at.Cursor = strconv.FormatUint(uint64(binary.BigEndian.Uint32(k)), 10)
		}
		if _, err := g.discover(j, w, dids); err != nil {
			return err
		}
		done = at.Done
		return cursors.put(w.cursors, []byte(heldListing), at)
	}})
	if err != nil {
		return false, err
	}
	return done, nil
}

// holds tells whether the index holds records of the repo in any of the targets.
func (r Repo) holds(targets []syntax.NSID) bool {
	if len(targets) == 0 {
		for _, h := range r.Collections {
			if h.Count > 0 {
				return true
			}
		}
		return false
	}
	for _, t := range targets {
		if r.Collections[t].Count > 0 {
			return true
		}
	}
	return false
}

// EndDiscovery notes that discovery is over, with the reason if it could not
// reach its end.
func (s *Store) EndDiscovery(ctx context.Context, seq uint64, reason string) error {
	return s.wait(ctx, change{op: "end discovery", urgent: true, apply: func(g *group) error {
		j, _, err := g.open(seq)
		if err != nil {
			return err
		}
		j.Discovered, j.DiscoveryError = true, reason
		j.work()
		return nil
	}})
}

// Rehost moves a repo from the queue of one host to that of another: from the
// empty host when it has been looked up, or from where it has turned out not to
// be any more. What was read at the old host does not count any more. done is
// told the outcome after the commit, and must not wait for anything.
func (s *Store) Rehost(ctx context.Context, seq uint64, did syntax.DID, from, to string, done func(error)) error {
	return s.submit(ctx, change{op: "move " + did.String(), bytes: rowBytes, done: done, apply: func(g *group) error {
		return g.rehost(seq, did, from, to)
	}})
}

// rowBytes estimates a change of a few small rows.
const rowBytes = 256

func (g *group) rehost(seq uint64, did syntax.DID, from, to string) error {
	j, w, err := g.open(seq)
	if err != nil {
		return err
	}
	o, err := w.owedAt(from, did)
	if err != nil {
		return err
	}
	if err := w.owed.Delete(owedKey(from, did)); err != nil {
		return err
	}
	if err := w.forget(did); err != nil {
		return err
	}
	if from == "" {
		j.Unresolved--
		j.work()
	}
	row, err := w.row(o)
	if err != nil {
		return err
	}
	if err := g.tally(j, row, -1); err != nil {
		return err
	}
	row.State, row.Host = RepoOwed, to
	return errors.Join(
		g.tally(j, row, 1),
		w.putOwed(Owed{DID: did, Host: to, Moved: from != "" || o.Moved, Again: o.Again}),
		workRepos.put(w.repos, []byte(did), row))
}

// row is the row of a repo that is owed.
func (w *workBuckets) row(o Owed) (WorkRepo, error) {
	switch {
	case o.Again:
		return workRepos.get(w.repos, []byte(o.DID))
	case o.Host == "":
		return WorkRepo{State: RepoFound}, nil
	default:
		return WorkRepo{State: RepoOwed, Host: o.Host}, nil
	}
}

// tally adds n times a repo to the counters of its job and of its host.
func (g *group) tally(j *Job, r WorkRepo, n int64) error {
	j.count(r, n)
	if r.Host == "" {
		return nil
	}
	h, err := g.host(j.Seq, r.Host)
	if err == nil {
		h.count(r, n)
	}
	return err
}

// Postpone notes a failed attempt at a repo and when the next may be made. done
// is told the outcome after the commit, and must not wait for anything.
func (s *Store) Postpone(ctx context.Context, seq uint64, o Owed, done func(error)) error {
	return s.submit(ctx, change{op: "postpone " + o.DID.String(), bytes: rowBytes, done: done, apply: func(g *group) error {
		_, w, err := g.open(seq)
		if err != nil {
			return err
		}
		stored, err := w.owedAt(o.Host, o.DID)
		if err != nil {
			return err
		}
		// How far it was read is Save's to say.
		o.Moved, o.Again, o.Position, o.Carry = stored.Moved, stored.Again, stored.Position, stored.Carry
		return w.putOwed(o)
	}})
}

// PutHost notes how a host behaves towards a job.
func (s *Store) PutHost(ctx context.Context, seq uint64, host string, b Behaviour) error {
	return s.wait(ctx, change{op: "note host " + host, bytes: rowBytes, apply: func(g *group) error {
		if _, _, err := g.open(seq); err != nil {
			return err
		}
		h, err := g.host(seq, host)
		if err == nil {
			h.Behaviour = b
		}
		return err
	}})
}

// host returns a job's row of a host for change; it is written when the group
// ends.
func (g *group) host(seq uint64, host string) (*HostWork, error) {
	w := g.work[seq]
	if h := w.changed[host]; h != nil {
		return h, nil
	}
	h, err := w.host(host)
	if err != nil {
		return nil, err
	}
	if w.changed == nil {
		w.changed = map[string]*HostWork{}
	}
	w.changed[host] = &h
	return &h, nil
}

// host is what the job knows of a host.
func (w *workBuckets) host(host string) (HostWork, error) {
	if h := w.changed[host]; h != nil {
		return *h, nil
	}
	h, err := hostRows.get(w.hosts, []byte(host))
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return h, err
}

// Host returns what the job knows of a host.
func (s *Store) Host(ctx context.Context, seq uint64, host string) (h HostWork, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err == nil {
			h, err = w.host(host)
		}
		return err
	})
	return h, err
}

// Listing returns how far a listing of the job has been read.
func (s *Store) Listing(ctx context.Context, seq uint64, name string) (c Cursor, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err != nil {
			return err
		}
		c, err = cursors.get(w.cursors, []byte(name))
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
	return c, err
}

// Owed returns up to limit repos of a host's queue, in DID order, behind after.
func (s *Store) Owed(ctx context.Context, seq uint64, host string, after syntax.DID, limit int) (list []Owed, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err != nil {
			return err
		}
		start := owedKey(host, after)
		if after != "" {
			start = append(start, 0)
		}
		c := w.owed.Cursor()
		for k, row := c.Seek(start); k != nil && len(list) < limit; k, row = c.Next() {
			h, did, ok := splitOwedKey(k)
			if !ok {
				return fmt.Errorf("%w: queue key %q", errRow, k)
			}
			if h != host {
				break
			}
			o, err := owedRows.decode(k, row)
			if err != nil {
				return fmt.Errorf("queue row %q: %w", k, err)
			}
			o.Host, o.DID = host, did
			list = append(list, o)
		}
		return nil
	})
	return list, err
}

// OwedHosts returns the hosts that have a queue, other than that of repos whose
// host is not known.
func (s *Store) OwedHosts(ctx context.Context, seq uint64) (hosts []string, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		w, err := workOf(tx, seq)
		if err != nil {
			return err
		}
		c := w.owed.Cursor()
		for k, _ := c.Seek(afterHost("")); k != nil; {
			host, _, ok := splitOwedKey(k)
			if !ok {
				return fmt.Errorf("%w: queue key %q", errRow, k)
			}
			hosts = append(hosts, host)
			k, _ = c.Seek(afterHost(host))
		}
		return nil
	})
	return hosts, err
}
