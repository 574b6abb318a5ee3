package jobs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

// Jobs are the jobs of a file: their life from the request to the end.
type Jobs struct{ file }

// CreateJob stores a new running job. Without targets it covers the collection of
// its request, else what is tracked at this moment, else every collection.
func (s *Jobs) CreateJob(ctx context.Context, id uuid.UUID, req Request, targets []syntax.NSID) (Job, error) {
	job, _, err := s.makeOnce(ctx, "create job", func(g *group) (*Job, bool, error) {
		job := Job{ID: id, Request: req, Targets: targets, Origin: api.OriginRequest}
		if len(targets) == 0 {
			var err error
			if job.Targets, err = g.targets(req); err != nil {
				return nil, false, err
			}
		}
		if _, err := g.create(&job); err != nil {
			return nil, false, err
		}
		return &job, true, admin.Note(ctx, g.tx, admin.Event{Action: api.ActCreateJob, Target: id.String(), Detail: job.Covers()})
	})
	if err != nil {
		return Job{}, err
	}
	return *job, nil
}

func (g *group) targets(req Request) ([]syntax.NSID, error) {
	if req.Collection != "" {
		return []syntax.NSID{req.Collection}, nil
	}
	return tracked(g.tx)
}

// create fills a new job in and stores it with its empty work.
func (g *group) create(job *Job) (*workBuckets, error) {
	ids := g.tx.Bucket([]byte(jobIDsBucket))
	if ids.Get(job.ID[:]) != nil {
		return nil, kv.Refuse(fmt.Errorf("create job %s: the id is taken", job.ID))
	}
	seq, err := jobs.Bucket(g.tx).NextSequence()
	if err != nil {
		return nil, err
	}
	job.Seq, job.Status, job.Stage, job.CreatedAt = seq, api.StatusRunning, api.StagePending, g.tx.Now
	if err := ids.Put(job.ID[:], kv.NumberKey(seq)); err != nil {
		return nil, err
	}
	work, err := g.tx.Bucket([]byte(workBucket)).CreateBucket(kv.NumberKey(seq))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{cursorBucket, workReposBucket, owedBucket, hostsBucket, listedBucket} {
		if _, err := work.CreateBucket([]byte(name)); err != nil {
			return nil, err
		}
	}
	stored := *job
	g.jobs[seq] = &stored
	return workOf(g.tx, seq)
}

// Job returns the job with the given id, or kv.ErrNotFound.
func (s *Jobs) Job(ctx context.Context, id uuid.UUID) (Job, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (Job, error) { return jobByID(tx, id) })
}

func jobByID(tx *kv.Tx, id uuid.UUID) (Job, error) {
	seq, err := jobSeq(tx, id)
	if err != nil {
		return Job{}, err
	}
	job, err := jobs.Get(jobs.Bucket(tx), kv.NumberKey(seq))
	return job, numbered(&job, id, seq, err)
}

// jobByID returns the row of a job for change: see job.
func (g *group) jobByID(id uuid.UUID) (*Job, error) {
	seq, err := jobSeq(g.tx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, kv.Refuse(err)
	}
	if err != nil {
		return nil, err
	}
	job, err := g.job(seq)
	return job, numbered(job, id, seq, err)
}

// jobSeq is the number that job_ids gives a job. Nothing proves it but the row that it
// leads to.
func jobSeq(tx *kv.Tx, id uuid.UUID) (uint64, error) {
	row := tx.Bucket([]byte(jobIDsBucket)).Get(id[:])
	switch {
	case row == nil:
		return 0, fmt.Errorf("job %s: %w", id, kv.ErrNotFound)
	case len(row) != 8:
		return 0, fmt.Errorf("%w: the number of job %s has %d bytes", kv.ErrRow, id, len(row))
	}
	return binary.BigEndian.Uint64(row), nil
}

// numbered refuses what was read as the job with the given id, by its number, and is
// another one, or none.
func numbered(job *Job, id uuid.UUID, seq uint64, err error) error {
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return fmt.Errorf("%w: job %s has the number %d, and no row", kv.ErrRow, id, seq)
	case err == nil && job.ID != id:
		return fmt.Errorf("%w: job %s has the number %d, which is that of %s", kv.ErrRow, id, seq, job.ID)
	}
	return err
}

// JobBySeq returns the job that was created as the one with the given number, or
// kv.ErrNotFound. What carries a job on names it by that number.
func (s *Jobs) JobBySeq(ctx context.Context, seq uint64) (Job, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (Job, error) {
		job, err := jobs.Get(jobs.Bucket(tx), kv.NumberKey(seq))
		if errors.Is(err, kv.ErrNotFound) {
			return Job{}, fmt.Errorf("job number %d: %w", seq, kv.ErrNotFound)
		}
		return job, err
	})
}

// List returns all jobs, newest first.
func (s *Jobs) List(ctx context.Context) (list []Job, err error) {
	err = s.EachJob(ctx, uuid.Nil, func(j Job) bool {
		list = append(list, j)
		return true
	})
	return list, err
}

// EachJob calls f for one job after the other, newest first, until it returns false.
// It begins behind the job with the given id, or fails with kv.ErrNotFound if there is
// none; with the nil id it begins at the newest.
func (s *Jobs) EachJob(ctx context.Context, before uuid.UUID, f func(Job) bool) error {
	return s.db.View(ctx, func(tx *kv.Tx) error {
		c := jobs.Bucket(tx).Cursor()
		k, row := c.Last()
		if before != uuid.Nil {
			job, err := jobByID(tx, before)
			if err != nil {
				return err
			}
			k, row = kv.SeekBefore(c, kv.NumberKey(job.Seq))
		}
		for ; k != nil; k, row = c.Prev() {
			job, err := jobs.Decode(k, row)
			if err != nil {
				return fmt.Errorf("job %x: %w", k, err)
			}
			if !f(job) {
				return nil
			}
		}
		return nil
	})
}

// StartJob notes that a worker has taken the job up. Taking it up again after a
// restart or a pause changes nothing, nor does taking up one that is to stop.
func (s *Jobs) StartJob(ctx context.Context, seq uint64) (Job, error) {
	return s.changeJob(ctx, "start job", seq, func(g *group, j *Job) error {
		if j.Status != api.StatusRunning || !j.StartedAt.IsZero() {
			return nil
		}
		j.StartedAt = g.tx.Now
		j.work()
		return nil
	})
}

// MoveJob asks a job to stop (api.StatusCancelling), to pause (api.StatusPausing) or to go
// on (api.StatusRunning). It fails with ErrMove when the job is not in a status from
// which it can. Stopping and pausing end work: they are done on a full disk too.
func (s *Jobs) MoveJob(ctx context.Context, id uuid.UUID, to api.Status) (Job, error) {
	action, may := map[api.Status]api.Action{
		api.StatusCancelling: api.ActCancelJob, api.StatusPausing: api.ActPauseJob, api.StatusRunning: api.ActResumeJob,
	}[to]
	if !may {
		return Job{}, fmt.Errorf("move job %s: nobody can ask it to be %s", id, to)
	}
	c := interactive("move job")
	c.EndsWork = to != api.StatusRunning
	return write(ctx, s.file, c, func(g *group) (Job, error) {
		j, err := g.jobByID(id)
		if err != nil {
			return Job{}, err
		}
		if err := j.move(to, g); err != nil {
			return Job{}, kv.Refuse(err)
		}
		return j.clone(), admin.Note(ctx, g.tx, admin.Event{Action: action, Target: id.String()})
	})
}

// FinishJob notes that nobody works on the job any more: it is cancelled or paused
// when it was asked to be, failed when discovery could not end, completed
// otherwise. summary is the error that a completed job shows when not every repo
// could be read. Nothing is changed while the job still owes work, or has repos to
// reopen, unless it is to stop.
func (s *Jobs) FinishJob(ctx context.Context, seq uint64, summary func(Job) string) (Job, error) {
	return s.changeJob(ctx, "finish job", seq, func(g *group, j *Job) error {
		if j.Status == api.StatusCancelling {
			j.Error = "cancelled by request"
			return j.move(api.StatusCancelled, g)
		}
		if j.Status == api.StatusPausing {
			return j.move(api.StatusPaused, g)
		}
		if j.Status != api.StatusRunning || !j.Done() {
			return nil
		}
		w, err := g.workOf(seq)
		if err != nil {
			return err
		}
		doubted, err := w.doubted(g.tx)
		switch {
		case err != nil || len(doubted) > 0:
			return err
		case j.DiscoveryError != "":
			j.Error = j.DiscoveryError
			return j.move(api.StatusFailed, g)
		default:
			j.Error = summary(*j)
			j.Listed = true
			return j.move(api.StatusCompleted, g)
		}
	})
}

// changeJob changes one job in a transaction that commits at once.
func (s *Jobs) changeJob(ctx context.Context, op string, seq uint64, do func(*group, *Job) error) (Job, error) {
	return write(ctx, s.file, kv.Change{Op: op, Urgent: true, EndsWork: true}, func(g *group) (Job, error) {
		j, err := g.job(seq)
		if err != nil {
			return Job{}, err
		}
		if err := do(g, j); err != nil {
			return Job{}, err
		}
		return j.clone(), nil
	})
}

// clone copies a job out of a group, whose maps go on changing.
func (j *Job) clone() Job {
	c := *j
	c.Reasons = maps.Clone(j.Reasons)
	return c
}
