package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/jobs"
)

// createBackfill stores a job and answers before any of it is done.
func (ctl *Control) createBackfill(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, answer.BadRequest("%s: the request goes in the body", err)
	}
	var collection, did string
	var dids []string
	if err := answer.DecodeBody(r.Body, answer.Optional("collection", &collection), answer.Optional("did", &did), answer.Optional("dids", &dids)); err != nil {
		return answer.Reply{}, err
	}
	req, err := parseRequest(collection, did, dids)
	if err != nil {
		return answer.Reply{}, err
	}
	return ctl.once(r, making{route: "createBackfill", asked: req, answer: created, do: func(ctx context.Context) (*jobs.Job, bool, error) {
		job, err := ctl.cfg.Jobs.Create(ctx, req)
		return &job, true, err
	}})
}

// created is the answer to what has made a job. The worker may be further
// already: the answer is what was asked for.
func created(job *jobs.Job, _ bool) answer.Reply {
	return answer.Reply{
		Status:   http.StatusCreated,
		Location: "/admin/backfill/" + job.ID.String(),
		Body:     api.JobRef{ID: job.ID, Status: api.StatusRunning},
	}
}

// MaxDIDs is how many repos a request may name.
const MaxDIDs = 500

// parseRequest reads what a job is to cover, and names everything that is wrong.
func parseRequest(collection, did string, dids []string) (req jobs.Request, err error) {
	switch {
	case did != "" && len(dids) > 0:
		return req, answer.BadRequest("did and dids were both given: name all repos in dids")
	case len(dids) > MaxDIDs:
		return req, answer.BadRequest("dids names %d repos, at most %d are allowed in one job", len(dids), MaxDIDs)
	}
	var wrong []string
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	req.Collection, err = answer.ParseCollection(collection)
	note(err)
	req.DID, err = answer.ParseDID(did)
	note(err)
	for _, text := range dids {
		one, err := answer.ParseDID(text)
		note(err)
		if !slices.Contains(req.DIDs, one) { // named twice, read once
			req.DIDs = append(req.DIDs, one)
		}
	}
	if len(wrong) > 0 {
		return jobs.Request{}, answer.BadRequest("%s", strings.Join(wrong, "; "))
	}
	return req, nil
}

func (ctl *Control) cancelBackfill(r *http.Request) (answer.Reply, error) {
	return ctl.moveBackfill(r, api.StatusCancelling, "only a running, pausing or paused job can be cancelled")
}

func (ctl *Control) pauseBackfill(r *http.Request) (answer.Reply, error) {
	return ctl.moveBackfill(r, api.StatusPausing, "only a running job can be paused")
}

func (ctl *Control) resumeBackfill(r *http.Request) (answer.Reply, error) {
	return ctl.moveBackfill(r, api.StatusRunning, "only a paused job can be resumed")
}

// moveBackfill asks a job to stop, to pause or to go on. It answers with the status
// that this gives it, whatever has become of it since.
func (ctl *Control) moveBackfill(r *http.Request, to api.Status, rule string) (answer.Reply, error) {
	id, err := commanded(r)
	if err != nil {
		return answer.Reply{}, err
	}
	if _, err = ctl.cfg.Jobs.Move(answer.Detached(r), id, to); err != nil {
		return answer.Reply{}, refused(id, err, rule)
	}
	return answer.OK(api.JobRef{ID: id, Status: to}), nil
}

// retryBackfill makes a job that carries on what a final one has left undone.
func (ctl *Control) retryBackfill(r *http.Request) (answer.Reply, error) {
	id, err := commanded(r)
	if err == nil {
		err = answer.DecodeBody(r.Body)
	}
	if err != nil {
		return answer.Reply{}, err
	}
	rep, err := ctl.once(r, making{route: "retryBackfill", asked: id, answer: created, do: func(ctx context.Context) (*jobs.Job, bool, error) {
		job, err := ctl.cfg.Jobs.Retry(ctx, id)
		return &job, true, err
	}})
	if err != nil {
		return answer.Reply{}, refused(id, err, "only a job that has ended can be retried")
	}
	return rep, nil
}

// commanded is the job that a request without parameters is about.
func commanded(r *http.Request) (uuid.UUID, error) {
	if _, err := answer.Query(r); err != nil {
		return uuid.Nil, err
	}
	return jobID(r)
}

// refused says why a command was not carried out: what the job is, where it would
// have to be something else.
func refused(id uuid.UUID, err error, rule string) error {
	var is *jobs.MoveError
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noJob(id.String())
	case errors.As(err, &is):
		return answer.BadRequest("job %s is %s: %s", id, is.Status, rule)
	default:
		return err
	}
}

func (ctl *Control) showBackfill(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	job, err := ctl.job(r)
	if err != nil {
		return answer.Reply{}, err
	}
	detail, err := ctl.newJobDetail(r.Context(), job)
	if err != nil {
		return answer.Reply{}, err
	}
	return answer.OK(detail), nil
}

// job is the job that the path names, as it is now.
func (ctl *Control) job(r *http.Request) (jobs.Job, error) {
	id, err := jobID(r)
	if err != nil {
		return jobs.Job{}, err
	}
	job, err := ctl.cfg.Store.Jobs.Job(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return jobs.Job{}, noJob(id.String())
	}
	return job, err
}

// jobID is the job that the path names. What is no UUID is no job either.
func jobID(r *http.Request) (uuid.UUID, error) {
	text := r.PathValue("id")
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) { // Parse takes other spellings too
		return uuid.Nil, answer.NotFound("there is no job %s: a job's id is a UUID", answer.Quoted(text))
	}
	return id, nil
}

func noJob(id string) error { return answer.NotFound("there is no job %s", id) }

// jobFilter chooses jobs of the list.
type jobFilter struct {
	status     api.Status
	collection syntax.NSID
	did        syntax.DID
	limit      int
	before     uuid.UUID
}

func (f jobFilter) takes(j jobs.Job) bool {
	return (f.status == "" || j.Status == f.status) &&
		(f.collection == "" || j.Request.Collection == f.collection) &&
		(f.did == "" || slices.Contains(j.Request.Named(), f.did))
}

// listBackfills answers with a bare array, newest first.
func (ctl *Control) listBackfills(r *http.Request) (answer.Reply, error) {
	filter, err := parseJobFilter(r)
	if err != nil {
		return answer.Reply{}, err
	}
	list := []api.Job{} // an empty list is [], not null
	err = ctl.cfg.Store.Jobs.EachJob(r.Context(), filter.before, func(j jobs.Job) bool {
		if filter.takes(j) {
			list = append(list, newJobBody(j))
		}
		return len(list) < filter.limit
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return answer.Reply{}, answer.BadRequest("before names no job: there is no job %s", filter.before)
	case err != nil:
		return answer.Reply{}, err
	}
	return answer.OK(list), nil
}

func parseJobFilter(r *http.Request) (f jobFilter, err error) {
	params, err := answer.Query(r, "status", "collection", "did", "limit", "before")
	if err != nil {
		return f, err
	}
	f.status = api.Status(params["status"])
	if !slices.Contains(api.Statuses(), f.status) && f.status != "" {
		return f, answer.BadRequest("status %s is none of %s", answer.Quoted(params["status"]), fmt.Sprint(api.Statuses()))
	}
	if f.collection, err = answer.ParseCollection(params["collection"]); err != nil {
		return f, err
	}
	if f.did, err = answer.ParseDID(params["did"]); err != nil {
		return f, err
	}
	if f.limit, err = answer.LimitOf(params["limit"], math.MaxInt, maxJobsPage); err != nil {
		return f, err
	}
	if text := params["before"]; text != "" {
		if f.before, err = uuid.Parse(text); err != nil || f.before == uuid.Nil {
			return f, answer.BadRequest("before must be the id of a job, it is %s", answer.Quoted(text))
		}
	}
	return f, nil
}

// maxJobsPage is the largest limit of the list. Without one, all jobs are listed.
const maxJobsPage = 10_000
