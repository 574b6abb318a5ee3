package backfill

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
)

const (
	// refreshCheck is how often it is looked whether a collection is to be read again.
	// The clock may jump, and timers do not run while a machine sleeps.
	refreshCheck = time.Minute
	// refreshRetry is how long after a failure the next job is made; it doubles with
	// each in a row, up to the time between two jobs.
	refreshRetry = 10 * time.Minute
	// refreshSpread is the part by which every such time is longer, by chance: not
	// everybody who was started at the same moment shall ask the hosts at the same moment.
	refreshSpread = 0.1
)

// AddCollection tracks a collection and has a job read it, which it returns. If it
// was tracked before, it changes nothing, and returns the job under way, if any.
func (b *Backfill) AddCollection(ctx context.Context, c syntax.NSID) (*jobs.Job, bool, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, false, fmt.Errorf("add collection: %w", err)
	}
	job, added, err := b.cfg.Store.Collections.AddCollection(ctx, c, id)
	if err == nil && added && job.ID == id {
		b.cfg.Log.InfoContext(ctx, "job created", "job", job.ID, "collection", c)
		b.notify()
	}
	return job, added, err
}

// ConfigureCollection tracks a collection that the configuration names, and has a
// job read it if none ever has completely and none is about to.
func (b *Backfill) ConfigureCollection(ctx context.Context, c syntax.NSID) error {
	if err := b.cfg.Store.Collections.Track(ctx, c); err != nil {
		return err
	}
	f, err := b.cfg.Store.Collections.Freshness(ctx, c)
	if err != nil || !f.SyncedAt.IsZero() {
		return err
	}
	return b.cover(ctx, c, api.OriginStart, f.Last)
}

// cover creates a job that reads a tracked collection, unless somebody else has, or
// the collection is not tracked any more.
func (b *Backfill) cover(ctx context.Context, c syntax.NSID, origin api.Origin, last uint64) error {
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("cover collection: %w", err)
	}
	job, err := b.cfg.Store.Collections.CoverCollection(ctx, c, id, origin, last)
	switch {
	case errors.Is(err, jobs.ErrBusy), errors.Is(err, jobs.ErrStale), errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	b.cfg.Log.InfoContext(ctx, "job created", "job", job.ID, "collection", c, "origin", origin)
	b.notify()
	return nil
}

// refresh keeps the tracked collections fresh until ctx ends: it creates a job for
// each that was read too long ago. What it goes by is in the store, written with the
// jobs themselves, so that neither a restart nor a clock that jumps makes it create
// one twice.
func (b *Backfill) refresh(ctx context.Context) error {
	if b.cfg.Refresh == 0 {
		return nil
	}
	timer := time.NewTimer(refreshCheck)
	defer timer.Stop()
	for {
		switch err := b.refreshDue(ctx); {
		case errors.Is(err, store.ErrDiskFull): // nor could a job do anything
		case err != nil:
			return stopped(ctx, fmt.Errorf("refresh: %w", err))
		}
		timer.Reset(refreshCheck)
		select {
		case <-timer.C:
		case <-b.ended:
		case <-ctx.Done():
			return nil
		}
	}
}

// refreshDue creates the jobs that are due, the longest overdue first, as long as
// there is room to work on them: whoever asks for a job must not wait for all of
// them. The end of a job makes room, and has this called again.
func (b *Backfill) refreshDue(ctx context.Context) error {
	list, err := b.cfg.Store.Collections.List(ctx)
	if err != nil {
		return err
	}
	running, err := b.cfg.Store.Jobs.Unfinished(ctx)
	if err != nil {
		return err
	}
	room := b.cfg.MaxJobs
	for _, j := range running {
		if j.Request.Network() && (j.Status == api.StatusRunning || j.Status == api.StatusCancelling) {
			room--
		}
	}
	now := b.cfg.Now()
	list = slices.DeleteFunc(list, func(c jobs.Collection) bool {
		at := b.refreshAt(c, now)
		return c.Covered || at.IsZero() || at.After(now)
	})
	slices.SortFunc(list, func(x, y jobs.Collection) int { return b.refreshAt(x, now).Compare(b.refreshAt(y, now)) })
	for _, c := range list[:min(max(room, 0), len(list))] {
		if err := b.cover(ctx, c.NSID, api.OriginRefresh, c.Fresh.Last); err != nil {
			return err
		}
	}
	return nil
}

// RefreshAt is when a tracked collection is to be read again; zero: never.
func (b *Backfill) RefreshAt(c jobs.Collection) time.Time { return b.refreshAt(c, b.cfg.Now()) }

// refreshAt is a while after the last complete job began, since what that found is as
// old as that. After a failure it is sooner. A job that somebody has cancelled is made
// again when as much time has passed as if it had been complete, and so is one whose
// records somebody has deleted.
func (b *Backfill) refreshAt(c jobs.Collection, now time.Time) time.Time {
	every := b.cfg.Refresh
	if every == 0 {
		return time.Time{}
	}
	from, wait := c.Fresh.SyncedAt, every
	switch {
	case c.Fresh.Last == 0: // tracked, and never read
		from, wait = c.Since, 0
	case c.Fresh.Status == api.StatusFailed:
		from, wait = c.Fresh.EndedAt, failedWait(c.Fresh.Failures, every)
	case c.Fresh.Status == api.StatusCancelled, from.IsZero():
		from = c.Fresh.EndedAt
	}
	if from.After(now.Add(wait)) {
		return now // the clock has jumped back: nobody knows how old it is
	}
	return from.Add(wait + time.Duration(chance(c.NSID, from)*refreshSpread*float64(wait)))
}

// failedWait is how long after so many failures in a row the next job is made.
func failedWait(failures int, every time.Duration) time.Duration {
	const most = 20 // doublings: more than any useful time between two jobs
	return min(refreshRetry<<min(max(failures-1, 0), most), every)
}

// chance is a number below 1 that looks like chance, but is the same after a restart.
func chance(c syntax.NSID, from time.Time) float64 {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(c), uint64(from.Unix())))
	const bits = 53 // of a float64
	return float64(binary.BigEndian.Uint64(sum[:])>>(64-bits)) / (1 << bits)
}
