package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
)

// maxTracked bounds the tracked collections: each has a bucket of its own.
const maxTracked = 1_000

// ErrBusy says that an unfinished job is in the way.
var ErrBusy = errors.New("an unfinished job covers it")

// trackedRow is a tracked collection.
type trackedRow struct {
	AddedAt time.Time `json:"added_at"`
}

var collections = table[trackedRow]{name: "collections", version: 1, fill: fillSpread}

// Collection is a tracked collection and what is known of it.
type Collection struct {
	NSID    syntax.NSID
	Since   time.Time // since when it is tracked
	Held    Count     // what is served of it
	Fresh   Freshness
	Job     *Job // the job over the network that covers it now, else the one that ended last; nil: none is known
	Covered bool // Job is not final
}

// Track adds a collection to the tracked ones.
func (s *Store) Track(ctx context.Context, c syntax.NSID) error {
	return s.do(ctx, "track "+c.String(), func(g *group) error {
		_, err := g.track(ctx, c)
		return err
	})
}

// track reports whether the collection is newly tracked.
func (g *group) track(ctx context.Context, c syntax.NSID) (bool, error) {
	b := collections.bucket(g.tx)
	if b.Get([]byte(c)) != nil {
		return false, nil
	}
	if n := b.Stats().KeyN; n >= maxTracked {
		return false, refuse(fmt.Errorf("%d collections are tracked: %w", n, ErrTooMany))
	}
	if err := collections.put(b, []byte(c), trackedRow{AddedAt: g.now}); err != nil {
		return false, err
	}
	return true, g.note(ctx, Event{Action: api.ActTrack, Target: c.String()})
}

// Tracked returns the tracked collections, in order.
func (s *Store) Tracked(ctx context.Context) (list []syntax.NSID, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error { list, err = tracked(tx); return err })
	return list, err
}

func tracked(tx *bbolt.Tx) (list []syntax.NSID, err error) {
	err = collections.eachKey(collections.bucket(tx), func(k []byte) error {
		list = append(list, syntax.NSID(k))
		return nil
	})
	return list, err
}

// Collections returns the tracked collections with what is known of them, in order.
func (s *Store) Collections(ctx context.Context) (list []Collection, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		running, err := unfinished(tx)
		if err != nil {
			return err
		}
		return collections.bucket(tx).ForEach(func(k, row []byte) error {
			c, err := collectionOf(tx, k, row, running)
			if err != nil {
				return fmt.Errorf("collection %s: %w", k, err)
			}
			list = append(list, c)
			return nil
		})
	})
	return list, err
}

func collectionOf(tx *bbolt.Tx, key, row []byte, running []Job) (Collection, error) {
	t, err := collections.decode(key, row)
	if err != nil {
		return Collection{}, err
	}
	name := syntax.NSID(key)
	c := Collection{NSID: name, Since: t.AddedAt}
	if c.Held, err = counts.get(counts.bucket(tx), key); err != nil && !errors.Is(err, ErrNotFound) {
		return c, err
	}
	if c.Fresh, err = freshnessOf(tx, name); err != nil {
		return c, err
	}
	if c.Job = covering(running, name); c.Job != nil || c.Fresh.Last == 0 {
		c.Covered = c.Job != nil
		return c, nil
	}
	last, err := jobs.get(jobs.bucket(tx), u64Key(c.Fresh.Last))
	if errors.Is(err, ErrNotFound) {
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
func (s *Store) AddCollection(ctx context.Context, c syntax.NSID, id uuid.UUID) (job *Job, added bool, err error) {
	err = s.doOnce(ctx, "add "+c.String(), func(g *group) (*Job, bool, error) {
		var err error
		if job, err = g.covering(c); err != nil {
			return nil, false, err
		}
		if added, err = g.track(ctx, c); err == nil && added && job == nil {
			job, err = g.cover(ctx, c, id, api.OriginRequest)
		}
		return job, added, err
	})
	if err != nil {
		return nil, false, err
	}
	return job, added, nil
}

// CoverCollection creates a job that reads a tracked collection from the network. It
// fails with ErrNotFound if the collection is not tracked, with ErrBusy if an
// unfinished job covers it, and with ErrStale if one has ended since the one given.
func (s *Store) CoverCollection(ctx context.Context, c syntax.NSID, id uuid.UUID, origin api.Origin, last uint64) (Job, error) {
	var job *Job
	err := s.do(ctx, "cover "+c.String(), func(g *group) error {
		if collections.bucket(g.tx).Get([]byte(c)) == nil {
			return refuse(fmt.Errorf("collection %s: %w", c, ErrNotFound))
		}
		busy, err := g.covering(c)
		if err != nil {
			return err
		}
		if busy != nil {
			return refuse(fmt.Errorf("collection %s, job %s: %w", c, busy.ID, ErrBusy))
		}
		f, err := freshnessOf(g.tx, c)
		if err != nil {
			return err
		}
		if f.Last != last {
			return refuse(fmt.Errorf("collection %s: another job has ended: %w", c, ErrStale))
		}
		job, err = g.cover(ctx, c, id, origin)
		return err
	})
	if err != nil {
		return Job{}, err
	}
	return *job, nil
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
	return &job, g.note(ctx, Event{Action: api.ActCreateJob, Target: id.String(), Detail: job.Covers()})
}

// RemoveCollection ceases to track a collection and, if asked to, deletes its
// records, of which it returns the number. It fails with ErrNotFound if it is not
// tracked, and with ErrBusy if an unfinished job reads it, from the network or from
// some repos: that would bring the records back. Like DeleteRecords it goes on after
// a restart.
func (s *Store) RemoveCollection(ctx context.Context, c syntax.NSID, records bool) (deleted int64, err error) {
	var id []byte
	err = s.do(ctx, "remove "+c.String(), func(g *group) error {
		b := collections.bucket(g.tx)
		if b.Get([]byte(c)) == nil {
			return refuse(fmt.Errorf("collection %s: %w", c, ErrNotFound))
		}
		list, err := g.unfinished()
		if err != nil {
			return err
		}
		for _, j := range list {
			if j.covers(c) {
				return refuse(fmt.Errorf("collection %s, job %s: %w", c, j.ID, ErrBusy))
			}
		}
		if err := b.Delete([]byte(c)); err != nil {
			return err
		}
		detail := "its records are kept"
		if records {
			detail = "its records are deleted"
			if id, err = g.addPurge(Filter{Collection: c}, actorIn(ctx)); err != nil {
				return err
			}
		}
		return g.note(ctx, Event{Action: api.ActUntrack, Target: c.String(), Detail: detail})
	})
	if err != nil || id == nil {
		return 0, err
	}
	return s.purge(ctx, id)
}
