package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
)

// ErrMove says that a job is not in a status from which it can go where it was
// asked to go. The text names the status that it is in.
var ErrMove = errors.New("job cannot do that now")

// MoveError is ErrMove with what the job is.
type MoveError struct {
	Job    uuid.UUID
	Status api.Status
}

func (e *MoveError) Error() string { return fmt.Sprintf("job %s is %s: %v", e.Job, e.Status, ErrMove) }

func (e *MoveError) Unwrap() error { return ErrMove }

// statusMoves is every way that a status may change. docs/operating.md draws it.
var statusMoves = map[api.Status][]api.Status{
	api.StatusRunning:    {api.StatusCompleted, api.StatusFailed, api.StatusPausing, api.StatusCancelling},
	api.StatusPausing:    {api.StatusPaused, api.StatusCancelling},
	api.StatusPaused:     {api.StatusRunning, api.StatusCancelling},
	api.StatusCancelling: {api.StatusCancelled},
	api.StatusCompleted:  {},
	api.StatusFailed:     {},
	api.StatusCancelled:  {},
}

// stageOrder is the order in which stages follow each other.
var stageOrder = []api.Stage{
	api.StagePending, api.StageDiscovering, api.StageResolving, api.StageFetching, api.StageCompleted, api.StageFailed, api.StageCancelled,
}

// Request is what a job was asked to cover.
type Request struct {
	Collection syntax.NSID `json:"collection,omitzero"` // empty: all
	DID        syntax.DID  `json:"did,omitzero"`        // empty: every repo that the relay lists

	DIDs []syntax.DID `json:"dids,omitempty"` // the same for several repos
}

// Named are the repos that the request names; none: the network's.
func (r Request) Named() []syntax.DID {
	if r.DID != "" {
		return append([]syntax.DID{r.DID}, r.DIDs...)
	}
	return r.DIDs
}

// Network tells whether the request is for one collection, or all, of the whole
// network.
func (r Request) Network() bool { return r.DID == "" && len(r.DIDs) == 0 }

// Job is a backfill job. Counters are those of settled repos.
type Job struct {
	Seq     uint64        `json:"seq"` // order of creation
	ID      uuid.UUID     `json:"id"`
	Request Request       `json:"request"`
	Targets []syntax.NSID `json:"targets,omitempty"`  // collections, fixed at creation; none: all that a repo has
	Origin  api.Origin    `json:"origin,omitempty"`   // who wanted it
	RetryOf uint64        `json:"retry_of,omitempty"` // the job that this one carries on
	First   uint64        `json:"first,omitempty"`    // the first job of those that it carries on, one after the other
	Since   time.Time     `json:"since,omitzero"`     // when that began

	Status api.Status `json:"status"`
	Stage  api.Stage  `json:"stage"`
	Error  string     `json:"error,omitempty"`

	Listed         bool   `json:"listed,omitempty"`          // discovery has committed something
	Discovered     bool   `json:"discovered,omitempty"`      // discovery is over
	DiscoveryError string `json:"discovery_error,omitempty"` // why it is over without its end

	TotalRepos  int64 `json:"total_repos"`
	Unresolved  int64 `json:"unresolved"` // found, but their host is not known yet
	Processed   int64 `json:"processed"`
	Failed      int64 `json:"failed"`
	Unavailable int64 `json:"unavailable"`
	Reopened    int64 `json:"reopened,omitempty"` // processed, and to be read anew: Reopen
	Tally       Tally `json:"tally"`

	Reasons map[string]int64 `json:"reasons,omitempty"` // settled repos by reason

	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	KeptFrom    time.Time `json:"kept_from,omitzero"` // the same by the store's own clock
}

// Tally counts the records of one repo, or of all settled repos of a job.
type Tally struct {
	Records  int64 `json:"records,omitempty"`  // found in the repo and kept
	Created  int64 `json:"created,omitempty"`  // of these, not in the index before
	Updated  int64 `json:"updated,omitempty"`  // of these, different in the index before
	Deleted  int64 `json:"deleted,omitempty"`  // in the index, no longer in the repo
	Rejected int64 `json:"rejected,omitempty"` // listed, but not what they claim to be
}

// Unchanged is how many records the index held already.
func (t Tally) Unchanged() int64 { return max(t.Records-t.Created-t.Updated, 0) }

// note counts a record that was to be deleted.
func (t *Tally) note(what removal) {
	if what == removed {
		t.Deleted++
	}
}

func (t *Tally) add(o Tally) { t.count(o, 1) }

// count adds n times o.
func (t *Tally) count(o Tally, n int64) {
	t.Records += n * o.Records
	t.Created += n * o.Created
	t.Updated += n * o.Updated
	t.Deleted += n * o.Deleted
	t.Rejected += n * o.Rejected
}

// after is the tally of a repo that was counted before and was read anew. Records
// are not counted twice, nor does any count go back.
func (t Tally) after(before Tally) Tally {
	return Tally{
		Records:  max(t.Records, before.Records),
		Created:  t.Created + before.Created,
		Updated:  t.Updated + before.Updated,
		Deleted:  t.Deleted + before.Deleted,
		Rejected: max(t.Rejected, before.Rejected),
	}
}

var jobs = table[Job]{name: "jobs", version: 1, fill: fillAppend}

// move changes the status. It is the only way a status changes.
func (j *Job) move(to api.Status, g *group) error {
	if !slices.Contains(statusMoves[j.Status], to) {
		return &MoveError{Job: j.ID, Status: j.Status}
	}
	j.Status = to
	if to.Final() {
		j.advance(api.Stage(to))
		j.CompletedAt, j.KeptFrom = g.now, g.steady
	}
	return nil
}

// count adds n times a repo, if it is one that counts as settled.
func (j *Job) count(r WorkRepo, n int64) {
	if r.Class == "" {
		return
	}
	j.Processed += n
	j.Tally.count(r.Tally, n)
	switch r.Class {
	case ClassFailed:
		j.Failed += n
	case ClassUnavailable:
		j.Unavailable += n
	}
	if r.State == RepoOwed {
		j.Reopened += n
	}
	if j.Reasons == nil {
		j.Reasons = map[string]int64{}
	}
	if j.Reasons[r.Reason] += n; j.Reasons[r.Reason] == 0 {
		delete(j.Reasons, r.Reason)
	}
}

// keptFor is for how long the job has been final, by the store's own clock.
func (j *Job) keptFor(steady time.Time) time.Duration {
	if j.KeptFrom.IsZero() { // it ended before there was such a clock, which began at the wall's time
		return steady.Sub(j.CompletedAt)
	}
	return steady.Sub(j.KeptFrom)
}

// advance moves the stage forward, never back.
func (j *Job) advance(to api.Stage) {
	if slices.Index(stageOrder, to) > slices.Index(stageOrder, j.Stage) {
		j.Stage = to
	}
}

// work moves the stage to the earliest phase that still owes work.
func (j *Job) work() {
	switch {
	case j.StartedAt.IsZero() || j.Status.Final():
	case !j.Discovered:
		j.advance(api.StageDiscovering)
	case j.Unresolved > 0:
		j.advance(api.StageResolving)
	default:
		j.advance(api.StageFetching)
	}
}

// Done tells whether nothing is owed any more. There may be repos to reopen.
func (j Job) Done() bool { return j.Discovered && j.Processed == j.TotalRepos && j.Reopened == 0 }

// Covers says in words what the job covers.
func (j Job) Covers() string {
	what, of := "all collections", "every repo"
	switch {
	case j.Request.Collection != "":
		what = j.Request.Collection.String()
	case len(j.Targets) == 1:
		what = j.Targets[0].String()
	case len(j.Targets) > 1:
		what = fmt.Sprintf("%d tracked collections", len(j.Targets))
	}
	switch named := j.Request.Named(); len(named) {
	case 0:
	case 1:
		of = named[0].String()
	default:
		of = fmt.Sprintf("%d repos", len(named))
	}
	return what + " of " + of
}

// CreateJob stores a new running job. Without targets it covers the collection of
// its request, else what is tracked at this moment, else every collection.
func (s *Store) CreateJob(ctx context.Context, id uuid.UUID, req Request, targets []syntax.NSID) (Job, error) {
	var job Job
	err := s.doOnce(ctx, "create job", func(g *group) (*Job, bool, error) {
		job = Job{ID: id, Request: req, Targets: targets, Origin: api.OriginRequest}
		if len(targets) == 0 {
			var err error
			if job.Targets, err = g.targets(req); err != nil {
				return nil, false, err
			}
		}
		if _, err := g.create(&job); err != nil {
			return nil, false, err
		}
		return &job, true, g.note(ctx, Event{Action: api.ActCreateJob, Target: id.String(), Detail: job.Covers()})
	})
	if err != nil {
		return Job{}, err
	}
	return job, nil
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
		return nil, refuse(fmt.Errorf("create job %s: the id is taken", job.ID))
	}
	seq, err := jobs.bucket(g.tx).NextSequence()
	if err != nil {
		return nil, err
	}
	job.Seq, job.Status, job.Stage, job.CreatedAt = seq, api.StatusRunning, api.StagePending, g.now
	if err := ids.Put(job.ID[:], u64Key(seq)); err != nil {
		return nil, err
	}
	work, err := g.tx.Bucket([]byte(workBucket)).CreateBucket(u64Key(seq))
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

// Job returns the job with the given id, or ErrNotFound.
func (s *Store) Job(ctx context.Context, id uuid.UUID) (job Job, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error { job, err = jobByID(tx, id); return err })
	return job, err
}

func jobByID(tx *bbolt.Tx, id uuid.UUID) (Job, error) {
	seq, err := jobSeq(tx, id)
	if err != nil {
		return Job{}, err
	}
	job, err := jobs.get(jobs.bucket(tx), u64Key(seq))
	return job, numbered(&job, id, seq, err)
}

// jobByID returns the row of a job for change: see job.
func (g *group) jobByID(id uuid.UUID) (*Job, error) {
	seq, err := jobSeq(g.tx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, refuse(err)
	}
	if err != nil {
		return nil, err
	}
	job, err := g.job(seq)
	return job, numbered(job, id, seq, err)
}

// jobSeq is the number that job_ids gives a job. Nothing proves it but the row that it
// leads to.
func jobSeq(tx *bbolt.Tx, id uuid.UUID) (uint64, error) {
	row := tx.Bucket([]byte(jobIDsBucket)).Get(id[:])
	switch {
	case row == nil:
		return 0, fmt.Errorf("job %s: %w", id, ErrNotFound)
	case len(row) != 8:
		return 0, fmt.Errorf("%w: the number of job %s has %d bytes", errRow, id, len(row))
	}
	return binary.BigEndian.Uint64(row), nil
}

// numbered refuses what was read as the job with the given id, by its number, and is
// another one, or none.
func numbered(job *Job, id uuid.UUID, seq uint64, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: job %s has the number %d, and no row", errRow, id, seq)
	case err == nil && job.ID != id:
		return fmt.Errorf("%w: job %s has the number %d, which is that of %s", errRow, id, seq, job.ID)
	}
	return err
}

// Jobs returns all jobs, newest first.
func (s *Store) Jobs(ctx context.Context) (list []Job, err error) {
	err = s.EachJob(ctx, uuid.Nil, func(j Job) bool {
		list = append(list, j)
		return true
	})
	return list, err
}

// EachJob calls f for one job after the other, newest first, until it returns false.
// It begins behind the job with the given id, or fails with ErrNotFound if there is
// none; with the nil id it begins at the newest.
func (s *Store) EachJob(ctx context.Context, before uuid.UUID, f func(Job) bool) error {
	return s.view(ctx, func(tx *bbolt.Tx) error {
		c := jobs.bucket(tx).Cursor()
		k, row := c.Last()
		if before != uuid.Nil {
			job, err := jobByID(tx, before)
			if err != nil {
				return err
			}
			k, row = seekBefore(c, u64Key(job.Seq))
		}
		for ; k != nil; k, row = c.Prev() {
			job, err := jobs.decode(k, row)
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
func (s *Store) StartJob(ctx context.Context, seq uint64) (Job, error) {
	return s.changeJob(ctx, "start job", seq, func(g *group, j *Job) error {
		if j.Status != api.StatusRunning || !j.StartedAt.IsZero() {
			return nil
		}
		j.StartedAt = g.now
		j.work()
		return nil
	})
}

// MoveJob asks a job to stop (StatusCancelling), to pause (StatusPausing) or to go
// on (StatusRunning). It fails with ErrMove when the job is not in a status from
// which it can. Stopping and pausing end work: they are done on a full disk too.
func (s *Store) MoveJob(ctx context.Context, id uuid.UUID, to api.Status) (Job, error) {
	action, may := map[api.Status]api.Action{
		api.StatusCancelling: api.ActCancelJob, api.StatusPausing: api.ActPauseJob, api.StatusRunning: api.ActResumeJob,
	}[to]
	if !may {
		return Job{}, fmt.Errorf("move job %s: nobody can ask it to be %s", id, to)
	}
	var job Job
	err := s.wait(ctx, change{op: "move job", urgent: true, admin: true, ends: to != api.StatusRunning, apply: func(g *group) error {
		j, err := g.jobByID(id)
		if err != nil {
			return err
		}
		if err := j.move(to, g); err != nil {
			return refuse(err)
		}
		job = j.clone()
		return g.note(ctx, Event{Action: action, Target: id.String()})
	}})
	if err != nil {
		return Job{}, err
	}
	return job, nil
}

// FinishJob notes that nobody works on the job any more: it is cancelled or paused
// when it was asked to be, failed when discovery could not end, completed
// otherwise. summary is the error that a completed job shows when not every repo
// could be read. Nothing is changed while the job still owes work, or has repos to
// reopen, unless it is to stop.
func (s *Store) FinishJob(ctx context.Context, seq uint64, summary func(Job) string) (Job, error) {
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
func (s *Store) changeJob(ctx context.Context, op string, seq uint64, do func(*group, *Job) error) (Job, error) {
	var job Job
	err := s.wait(ctx, change{op: op, urgent: true, ends: true, apply: func(g *group) error {
		j, err := g.job(seq)
		if err != nil {
			return err
		}
		if err := do(g, j); err != nil {
			return err
		}
		job = j.clone()
		return nil
	}})
	if err != nil {
		return Job{}, err
	}
	return job, nil
}

// clone copies a job out of a group, whose maps go on changing.
func (j *Job) clone() Job {
	c := *j
	c.Reasons = maps.Clone(j.Reasons)
	return c
}
