package jobs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/index"
	"appview/store/kv"
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

// Network reports whether the request is for one collection, or all, of the whole
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

	TotalRepos  int64       `json:"total_repos"`
	Unresolved  int64       `json:"unresolved"` // found, but their host is not known yet
	Processed   int64       `json:"processed"`
	Failed      int64       `json:"failed"`
	Unavailable int64       `json:"unavailable"`
	Reopened    int64       `json:"reopened,omitempty"` // processed, and to be read anew: Reopen
	Tally       index.Tally `json:"tally"`

	Reasons map[string]int64 `json:"reasons,omitempty"` // settled repos by reason

	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	KeptFrom    time.Time `json:"kept_from,omitzero"` // the same by the store's own clock
}

// readAnew is the tally of a repo that was counted before. Records are not counted twice,
// nor does any count go back.
func readAnew(t, before index.Tally) index.Tally {
	return index.Tally{
		Records:  max(t.Records, before.Records),
		Created:  t.Created + before.Created,
		Updated:  t.Updated + before.Updated,
		Deleted:  t.Deleted + before.Deleted,
		Rejected: max(t.Rejected, before.Rejected),
	}
}

var jobs = kv.Table[Job]{Name: "jobs", Version: 1, Fill: kv.FillAppend}

// move changes the status. It is the only way a status changes.
func (j *Job) move(to api.Status, g *group) error {
	if !slices.Contains(statusMoves[j.Status], to) {
		return &MoveError{Job: j.ID, Status: j.Status}
	}
	j.Status = to
	if to.Final() {
		j.advance(api.Stage(to))
		j.CompletedAt, j.KeptFrom = g.tx.Now, g.tx.Steady
	}
	return nil
}

// count adds n times a repo, if it is one that counts as settled.
func (j *Job) count(r WorkRepo, n int64) {
	if r.Class == "" {
		return
	}
	j.Processed += n
	j.Tally.Count(r.Tally, n)
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

// Done reports whether nothing is owed any more. There may be repos to reopen.
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

// StatusMoves is every way that a status may change.
func StatusMoves() map[api.Status][]api.Status { return maps.Clone(statusMoves) }
