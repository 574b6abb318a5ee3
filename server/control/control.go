package control

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/jobs"
)

// Jobs commands backfill jobs.
type Jobs interface {
	// Create stores a job and lets its worker start. It does not wait for the network.
	Create(ctx context.Context, req jobs.Request) (jobs.Job, error)
	// Move asks a job to stop (api.StatusCancelling), to pause (api.StatusPausing) or to go
	// on (api.StatusRunning). It fails with jobs.ErrMove when that cannot be asked of it now.
	Move(ctx context.Context, id uuid.UUID, to api.Status) (jobs.Job, error)
	// Retry stores a job that carries on a final one. It fails with jobs.ErrMove if that
	// is not final, and with jobs.ErrNothingLeft if it has left nothing undone.
	Retry(ctx context.Context, id uuid.UUID) (jobs.Job, error)
}

// Progress tells how unfinished jobs go on.
type Progress interface {
	// Progress tells what a job waits for, if it waits, and how fast it is now.
	Progress(job jobs.Job) (waiting api.Waiting, reposPerSecond, recordsPerSecond float64)
	// Waits tells of a job that waits for the relay or the directory which host that is,
	// since when it waits, when the host is asked again, and what came last from there.
	Waits(job jobs.Job) (host string, since, until time.Time, answer string)
}

// Collections keeps the tracked collections.
type Collections interface {
	// AddCollection tracks a collection and has a job read it, which it returns. If it
	// was tracked before, it changes nothing, and returns the job under way, if any.
	AddCollection(ctx context.Context, c syntax.NSID) (job *jobs.Job, added bool, err error)
	// RefreshAt is when a collection is read again by itself; zero: it is not.
	RefreshAt(c jobs.Collection) time.Time
}

// Backfill is everything that reads the network.
type Backfill interface {
	Jobs
	Progress
	Collections
}

// Config says what administrators command.
type Config struct {
	Store    *store.Store
	Jobs     Backfill
	Planner  Planner                                      // nil: no plans are made
	Hosts    Hosts                                        // what is known of hosts now; nil: that all may be asked
	AdminKey string                                       // of the configuration; none if empty
	Version  string                                       // of the program
	Allows   func(r *http.Request, p api.Permission) bool // whether the key of a request holds a permission
	Revoked  func(key uuid.UUID)                          // is told of each key that opens nothing any more
	Log      *slog.Logger
	Now      func() time.Time
}

// Control answers administrators.
type Control struct {
	cfg Config
	out *answer.Answers

	broadcasters broadcasters

	environment func() (uuid.UUID, error) // whose the Idempotency-Keys of cfg.AdminKey are
}

// New answers administrators.
func New(cfg Config, out *answer.Answers) *Control {
	ctl := &Control{
		cfg: cfg, out: out,
		environment: sync.OnceValues(func() (uuid.UUID, error) { return environmentOwner(cfg.AdminKey) }),
	}
	ctl.broadcasters = broadcasters{out: out, look: ctl.lookAtJob, jobs: map[uuid.UUID]*broadcaster{}}
	return ctl
}

// Routes is everything that administrators command and see, but for records.
func (ctl *Control) Routes() []answer.Route {
	o := ctl.out
	list := []answer.Route{
		answer.Post("/admin/backfill", api.BackfillCreate, o.Answer(ctl.createBackfill)),
		answer.Get("/admin/backfill/status", api.BackfillRead, o.Answer(ctl.listBackfills)),
		answer.Get("/admin/backfill/{id}", api.BackfillRead, o.Answer(ctl.showBackfill)),
		answer.Post("/admin/backfill/{id}/cancel", api.BackfillCreate, answer.BodyUnread(o.Answer(ctl.cancelBackfill))),
		answer.Post("/admin/backfill/{id}/pause", api.BackfillCreate, answer.BodyUnread(o.Answer(ctl.pauseBackfill))),
		answer.Post("/admin/backfill/{id}/resume", api.BackfillCreate, answer.BodyUnread(o.Answer(ctl.resumeBackfill))),
		answer.Post("/admin/backfill/{id}/retry", api.BackfillCreate, o.Answer(ctl.retryBackfill)),
		answer.Get("/admin/backfill/{id}/repos", api.BackfillRead, o.Answer(ctl.listJobRepos)),
		answer.Get("/admin/backfill/{id}/pds-summary", api.BackfillRead, o.Answer(ctl.listJobHosts)),
		answer.Get("/admin/backfill/{id}/report", api.BackfillRead, answer.Unhurried(o.Stream(ctl.reportJob))),
		answer.Get("/admin/backfill/{id}/events", api.BackfillRead, answer.Unhurried(o.Stream(ctl.streamJob))),
		answer.Delete("/admin/records", api.RecordsDelete, answer.Unhurried(o.Answer(ctl.deleteRecords))),
		answer.Get("/admin/stats", api.StatsRead, o.Answer(ctl.stats)),
		answer.Get("/admin/collections", api.CollectionsManage, o.Answer(ctl.listCollections)),
		answer.Post("/admin/collections", api.CollectionsManage, o.Answer(ctl.addCollection)),
		answer.Delete("/admin/collections", api.CollectionsManage, answer.Unhurried(o.Answer(ctl.removeCollection))),
		answer.Get("/admin/denylist", api.DenylistManage, o.Answer(ctl.listDenials)),
		answer.Post("/admin/denylist", api.DenylistManage, answer.Unhurried(o.Answer(ctl.addDenial))),
		answer.Delete("/admin/denylist", api.DenylistManage, o.Answer(ctl.removeDenial)),
		answer.Get("/admin/api-keys", api.KeysManage, o.Answer(ctl.listKeys)),
		answer.Post("/admin/api-keys", api.KeysManage, o.Answer(ctl.createKey)),
		answer.Delete("/admin/api-keys/{id}", api.KeysManage, o.Answer(ctl.revokeKey)),
		answer.Get("/admin/events", api.AuditRead, o.Answer(ctl.listEvents)),
		answer.Get("/admin/backup", api.Backup, answer.Unhurried(o.Stream(ctl.backup))),
	}
	if ctl.cfg.Planner != nil {
		list = append(list, answer.Get("/admin/backfill/plan", api.BackfillRead, o.Answer(ctl.planBackfill)))
	}
	return list
}

// Watched is how many jobs are watched by clients.
func (ctl *Control) Watched() int { return ctl.broadcasters.watched() }
