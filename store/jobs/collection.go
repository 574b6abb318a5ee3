package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/kv"
)

// maxTracked bounds the tracked collections: each has a bucket of its own.
const maxTracked = 1_000

// ErrBusy says that an unfinished job is in the way.
var ErrBusy = errors.New("an unfinished job covers it")

// trackedRow is a tracked collection.
type trackedRow struct {
	AddedAt time.Time `json:"added_at"`
}

var collections = kv.Table[trackedRow]{Name: "collections", Version: 1, Fill: kv.FillSpread}

// Collections are the tracked collections of a file, and how fresh the index is there.
type Collections struct{ file }

// Collection is a tracked collection and what is known of it.
type Collection struct {
	NSID    syntax.NSID
	Since   time.Time   // since when it is tracked
	Held    index.Count // what is served of it
	Fresh   Freshness
	Job     *Job // the job over the network that covers it now, else the one that ended last; nil: none is known
	Covered bool // Job is not final
}

// Track adds a collection to the tracked ones.
func (s *Collections) Track(ctx context.Context, c syntax.NSID) error {
	return s.do(ctx, interactive("track "+c.String()), func(g *group) error {
		_, err := g.track(ctx, c)
		return err
	})
}

// track reports whether the collection is newly tracked.
func (g *group) track(ctx context.Context, c syntax.NSID) (bool, error) {
	b := collections.Bucket(g.tx)
	if b.Get([]byte(c)) != nil {
		return false, nil
	}
	if n := b.Stats().KeyN; n >= maxTracked {
		return false, kv.Refuse(fmt.Errorf("%d collections are tracked: %w", n, kv.ErrTooMany))
	}
	if err := collections.Put(b, []byte(c), trackedRow{AddedAt: g.tx.Now}); err != nil {
		return false, err
	}
	return true, admin.Note(ctx, g.tx, admin.Event{Action: api.ActTrack, Target: c.String()})
}

// Tracked returns the tracked collections, in order.
func (s *Collections) Tracked(ctx context.Context) ([]syntax.NSID, error) {
	return kv.Read(ctx, s.db, tracked)
}

func tracked(tx *kv.Tx) (list []syntax.NSID, err error) {
	err = collections.EachKey(collections.Bucket(tx), func(k []byte) error {
		list = append(list, syntax.NSID(k))
		return nil
	})
	return list, err
}

// List returns the tracked collections with what is known of them, in order.
func (s *Collections) List(ctx context.Context) ([]Collection, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (list []Collection, err error) {
		running, err := unfinished(tx)
		if err != nil {
			return nil, err
		}
		err = collections.Bucket(tx).ForEach(func(k, row []byte) error {
			c, err := collectionOf(tx, k, row, running)
			if err != nil {
				return fmt.Errorf("collection %s: %w", k, err)
			}
			list = append(list, c)
			return nil
		})
		return list, err
	})
}

func collectionOf(tx *kv.Tx, key, row []byte, running []Job) (Collection, error) {
	t, err := collections.Decode(key, row)
	if err != nil {
		return Collection{}, err
	}
	name := syntax.NSID(key)
	c := Collection{NSID: name, Since: t.AddedAt}
	if c.Held, err = index.CountOf(tx, name); err != nil {
		return c, err
	}
	if c.Fresh, err = freshnessOf(tx, name); err != nil {
		return c, err
	}
	if c.Job = covering(running, name); c.Job != nil || c.Fresh.Last == 0 {
		c.Covered = c.Job != nil
		return c, nil
	}
	last, err := jobs.Get(jobs.Bucket(tx), kv.NumberKey(c.Fresh.Last))
	if errors.Is(err, kv.ErrNotFound) {
		return c, nil // forgotten
	}
	c.Job = &last
	return c, err
}

// covering is the latest of some jobs that reads a collection from the network.
func covering(list []Job, c syntax.NSID) (found *Job) {
	for i := range list {
		if list[i].Request.Network() && list[i].covers(c) {
			found = &list[i]
		}
	}
	return found
}

// AddCollection tracks a collection and, with that, creates a job that reads it from
// the network, unless there is an unfinished one. It returns that job, and whether
// the collection was not tracked before; if it was, nothing is changed, and the job
// is nil when none is unfinished.
func (s *Collections) AddCollection(ctx context.Context, c syntax.NSID, id uuid.UUID) (job *Job, added bool, err error) {
	return s.makeOnce(ctx, "add "+c.String(), func(g *group) (job *Job, added bool, err error) {
		if job, err = g.covering(c); err != nil {
			return nil, false, err
		}
		if added, err = g.track(ctx, c); err == nil && added && job == nil {
			job, err = g.cover(ctx, c, id, api.OriginRequest)
		}
		return job, added, err
	})
}

// CoverCollection creates a job that reads a tracked collection from the network. It
// fails with kv.ErrNotFound if the collection is not tracked, with ErrBusy if an
// unfinished job covers it, and with ErrStale if one has ended since the one given.
func (s *Collections) CoverCollection(ctx context.Context, c syntax.NSID, id uuid.UUID, origin api.Origin, last uint64) (Job, error) {
	return write(ctx, s.file, interactive("cover "+c.String()), func(g *group) (none Job, err error) {
		if collections.Bucket(g.tx).Get([]byte(c)) == nil {
			return none, kv.Refuse(fmt.Errorf("collection %s: %w", c, kv.ErrNotFound))
		}
		busy, err := g.covering(c)
		if err != nil {
			return none, err
		}
		if busy != nil {
			return none, kv.Refuse(fmt.Errorf("collection %s, job %s: %w", c, busy.ID, ErrBusy))
		}
		f, err := freshnessOf(g.tx, c)
		if err != nil {
			return none, err
		}
		if f.Last != last {
			return none, kv.Refuse(fmt.Errorf("collection %s: another job has ended: %w", c, ErrStale))
		}
		job, err := g.cover(ctx, c, id, origin)
		if err != nil {
			return none, err
		}
		return *job, nil
	})
}

func (g *group) covering(c syntax.NSID) (*Job, error) {
	list, err := g.unfinished()
	return covering(list, c), err
}

func (g *group) cover(ctx context.Context, c syntax.NSID, id uuid.UUID, origin api.Origin) (*Job, error) {
	job := Job{ID: id, Request: Request{Collection: c}, Targets: []syntax.NSID{c}, Origin: origin}
	if _, err := g.create(&job); err != nil {
		return nil, err
	}
	return &job, admin.Note(ctx, g.tx, admin.Event{Action: api.ActCreateJob, Target: id.String(), Detail: job.Covers()})
}

// RemoveCollection ceases to track a collection and, if asked to, deletes its
// records, of which it returns the number. It fails with kv.ErrNotFound if it is not
// tracked, and with ErrBusy if an unfinished job reads it, from the network or from
// some repos: that would bring the records back. Like DeleteRecords it goes on after
// a restart.
func (s *Collections) RemoveCollection(ctx context.Context, c syntax.NSID, records bool) (deleted int64, err error) {
	id, err := write(ctx, s.file, interactive("remove "+c.String()), func(g *group) (id []byte, err error) {
		if err := g.untrack(c); err != nil {
			return nil, err
		}
		detail := "its records are kept"
		if records {
			detail = "its records are deleted"
			if id, err = g.beginDelete(index.Filter{Collection: c}, admin.ActorIn(ctx)); err != nil {
				return nil, err
			}
		}
		return id, admin.Note(ctx, g.tx, admin.Event{Action: api.ActUntrack, Target: c.String(), Detail: detail})
	})
	if err != nil || id == nil {
		return 0, err
	}
	return s.index.FinishDelete(ctx, id)
}

// untrack ceases to track a collection, unless an unfinished job reads it.
func (g *group) untrack(c syntax.NSID) error {
	b := collections.Bucket(g.tx)
	if b.Get([]byte(c)) == nil {
		return kv.Refuse(fmt.Errorf("collection %s: %w", c, kv.ErrNotFound))
	}
	list, err := g.unfinished()
	if err != nil {
		return err
	}
	for _, j := range list {
		if j.covers(c) {
			return kv.Refuse(fmt.Errorf("collection %s, job %s: %w", c, j.ID, ErrBusy))
		}
	}
	return b.Delete([]byte(c))
}

// ErrNoFilter says that a deletion names neither a collection nor a DID.
var ErrNoFilter = errors.New("name a collection or a did")

// DeleteRecords deletes the records that the filter chooses and that are there
// when it is called, and returns how many there were. It works in bounded steps,
// with what is left to do on disk: should the process end in between, the next one goes
// on with it.
func (s *Collections) DeleteRecords(ctx context.Context, filter index.Filter) (deleted int64, err error) {
	if filter == (index.Filter{}) {
		return 0, fmt.Errorf("delete records: %w", ErrNoFilter)
	}
	id, err := write(ctx, s.file, interactive("delete records"), func(g *group) ([]byte, error) {
		id, err := g.beginDelete(filter, admin.ActorIn(ctx))
		if err != nil {
			return nil, err
		}
		return id, admin.Note(ctx, g.tx, admin.Event{Action: api.ActDeleteRecords, Target: filter.String(), Outcome: api.OutcomeBegun})
	})
	if err != nil {
		return 0, err
	}
	return s.index.FinishDelete(ctx, id)
}

// beginDelete has records be deleted. Where these are all of a collection, what jobs have
// read so far is no longer what the index holds.
func (g *group) beginDelete(filter index.Filter, by *admin.Actor) (id []byte, err error) {
	if filter.DID == "" {
		if err := g.forgetFreshness(filter.Collection); err != nil {
			return nil, err
		}
	}
	return index.BeginDelete(g.tx, filter, by)
}

// Stats is what the index holds, and how fresh it is.
type Stats struct {
	index.Stats

	Fresh map[syntax.NSID]Freshness
}

// Stats returns kept counts; it does not scan.
func (s *Collections) Stats(ctx context.Context) (Stats, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (st Stats, err error) {
		st.Fresh = map[syntax.NSID]Freshness{}
		if st.Stats, err = s.index.Stats(tx); err != nil {
			return st, err
		}
		for name := range st.Collections {
			if st.Fresh[name], err = freshnessOf(tx, name); err != nil {
				return st, fmt.Errorf("how fresh %s is: %w", name, err)
			}
		}
		return st, nil
	})
}
