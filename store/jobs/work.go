package jobs

import (
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/kv"
)

// ErrStale says that a change was made for work that is no longer there: the repo
// was settled or moved in the meantime, or the job is final.
var ErrStale = errors.New("no longer owed")

// Work is what jobs still owe, and what they learn by the way.
type Work struct{ file }

// Owed is one repo in the queue of a job: what is still to be read of it.
type Owed struct {
	DID       syntax.DID  `json:"-"`
	Host      string      `json:"-"`                   // empty: to be looked up
	Attempts  int         `json:"attempts,omitempty"`  // that failed since it last got on
	NotBefore time.Time   `json:"not_before,omitzero"` // of the next attempt
	LimitedAt time.Time   `json:"limited_at,omitzero"` // since when somebody on its way has answered nothing but "slow down"
	Reason    string      `json:"reason,omitempty"`    // of the last failure
	Detail    string      `json:"detail,omitempty"`    // the same in words
	Reached   int         `json:"reached,omitempty"`   // pages of it that a failed attempt has had since it last got on
	Moved     bool        `json:"moved,omitempty"`     // it was found at another host once
	Again     bool        `json:"again,omitempty"`     // it was settled, is counted as that, and is to be read anew
	Position  *Position   `json:"position,omitempty"`  // of a repo read in steps
	Carry     index.Tally `json:"carry,omitzero"`      // what a settlement too large for one transaction has changed so far
	Proofs    int         `json:"proofs,omitempty"`    // of single records that its host was asked for, before Position
	Probe     bool        `json:"probe,omitempty"`     // a listing says that its account is not active
	Key       string      `json:"key,omitempty"`       // of its signatures, as it was looked up with the host; empty: not known
	LookedUp  time.Time   `json:"looked_up,omitzero"`  // when that was

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
	Tally   index.Tally              `json:"tally,omitzero"`    // of this pass so far
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
	State    RepoState   `json:"state"`
	Host     string      `json:"host,omitempty"`
	Class    string      `json:"class,omitempty"`
	Reason   string      `json:"reason,omitempty"`
	Detail   string      `json:"detail,omitempty"`
	Attempts int         `json:"attempts,omitempty"`
	Rev      syntax.TID  `json:"rev,omitzero"`
	Tally    index.Tally `json:"tally,omitzero"`
	Assumed  bool        `json:"assumed,omitempty"`  // settled with a short page taken for the end of a listing, or Unprobed
	Unprobed bool        `json:"unprobed,omitempty"` // settled as active since its host gave the repo: it was not asked for the account's status
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
	Assumed   int64 `json:"assumed,omitempty"`   // of the settled ones, with something assumed that the host was not asked for
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
	workRepos = kv.Table[WorkRepo]{Name: workReposBucket, Version: 1, Fill: kv.FillSpread}
	owedRows  = kv.Table[Owed]{Name: owedBucket, Version: 1, Fill: kv.FillSpread}
	cursors   = kv.Table[Cursor]{Name: cursorBucket, Version: 1, Fill: kv.FillSpread}
	hostRows  = kv.Table[HostWork]{Name: hostsBucket, Version: 1, Fill: kv.FillSpread}
)

// workBuckets are the buckets of one job's work.
type workBuckets struct {
	repos, owed, cursors, hosts *kv.Bucket
	marks                       index.Marks

	changed map[string]*HostWork // rows of hosts, until the group ends
}

// workOf is the work of a job. It fails with kv.ErrNotFound when that is forgotten, or
// about to be: the cursors go first.
func workOf(tx *kv.Tx, seq uint64) (*workBuckets, error) {
	b := tx.Bucket([]byte(workBucket)).Bucket(kv.NumberKey(seq))
	if b == nil || b.Bucket([]byte(cursorBucket)) == nil {
		return nil, fmt.Errorf("work of job %d: %w", seq, kv.ErrNotFound)
	}
	w := &workBuckets{
		repos: b.Bucket([]byte(workReposBucket)), owed: b.Bucket([]byte(owedBucket)),
		cursors: b.Bucket([]byte(cursorBucket)), hosts: b.Bucket([]byte(hostsBucket)), marks: index.MarksIn(b.Bucket([]byte(listedBucket))),
	}
	for _, b := range []*kv.Bucket{w.repos, w.owed, w.cursors, w.hosts, b.Bucket([]byte(listedBucket))} {
		if b == nil {
			return nil, fmt.Errorf("%w: work of job %d lacks a bucket", kv.ErrRow, seq)
		}
		b.FillPercent = kv.FillSpread
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
		return nil, nil, kv.Refuse(fmt.Errorf("job %s is %s: %w", j.ID, j.Status, ErrStale))
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
	o, err := owedRows.Get(w.owed, owedKey(host, did))
	if errors.Is(err, kv.ErrNotFound) {
		return o, kv.Refuse(fmt.Errorf("%s at %q: %w", did, host, ErrStale))
	}
	o.Host, o.DID = host, did
	return o, err
}

func (w *workBuckets) putOwed(o Owed) error {
	return owedRows.Put(w.owed, owedKey(o.Host, o.DID), o)
}
