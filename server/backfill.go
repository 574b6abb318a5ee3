package server

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
	"appview/store"
	"appview/store/jobs"
)

// createBackfill stores a job and answers before any of it is done.
func (s *Server) createBackfill(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, badRequest("%s: the request goes in the body", err)
	}
	var collection, did string
	var dids []string
	if err := decodeBody(r.Body, member{"collection", &collection}, member{"did", &did}, member{"dids", &dids}); err != nil {
		return reply{}, err
	}
	req, err := parseRequest(collection, did, dids)
	if err != nil {
		return reply{}, err
	}
	return s.once(r, making{route: "createBackfill", asked: req, answer: created, do: func(ctx context.Context) (*jobs.Job, bool, error) {
		job, err := s.cfg.Jobs.Create(ctx, req)
		return &job, true, err
	}})
}

// created is the answer to what has made a job. The worker may be further
// already: the answer is what was asked for.
func created(job *jobs.Job, _ bool) reply {
	return reply{
		status:   http.StatusCreated,
		location: "/admin/backfill/" + job.ID.String(),
		body:     api.JobRef{ID: job.ID, Status: api.StatusRunning},
	}
}

// MaxDIDs is how many repos a request may name.
const MaxDIDs = 500

// parseRequest reads what a job is to cover, and names everything that is wrong.
func parseRequest(collection, did string, dids []string) (req jobs.Request, err error) {
	switch {
	case did != "" && len(dids) > 0:
		return req, badRequest("did and dids were both given: name all repos in dids")
	case len(dids) > MaxDIDs:
		return req, badRequest("dids names %d repos, at most %d are allowed in one job", len(dids), MaxDIDs)
	}
	var wrong []string
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	req.Collection, err = parseCollection(collection)
	note(err)
	req.DID, err = parseDID(did)
	note(err)
	for _, text := range dids {
		one, err := parseDID(text)
		note(err)
		if !slices.Contains(req.DIDs, one) { // named twice, read once
			req.DIDs = append(req.DIDs, one)
		}
	}
	if len(wrong) > 0 {
		return jobs.Request{}, badRequest("%s", strings.Join(wrong, "; "))
	}
	return req, nil
}

func (s *Server) cancelBackfill(r *http.Request) (reply, error) {
	return s.moveBackfill(r, api.StatusCancelling, "only a running, pausing or paused job can be cancelled")
}

func (s *Server) pauseBackfill(r *http.Request) (reply, error) {
	return s.moveBackfill(r, api.StatusPausing, "only a running job can be paused")
}

func (s *Server) resumeBackfill(r *http.Request) (reply, error) {
	return s.moveBackfill(r, api.StatusRunning, "only a paused job can be resumed")
}

// moveBackfill asks a job to stop, to pause or to go on. It answers with the status
// that this gives it, whatever has become of it since.
func (s *Server) moveBackfill(r *http.Request, to api.Status, rule string) (reply, error) {
	id, err := commanded(r)
	if err != nil {
		return reply{}, err
	}
	if _, err = s.cfg.Jobs.Move(detached(r), id, to); err != nil {
		return reply{}, refused(id, err, rule)
	}
	return ok(api.JobRef{ID: id, Status: to}), nil
}

// retryBackfill makes a job that carries on what a final one has left undone.
func (s *Server) retryBackfill(r *http.Request) (reply, error) {
	id, err := commanded(r)
	if err == nil {
		err = decodeBody(r.Body)
	}
	if err != nil {
		return reply{}, err
	}
	rep, err := s.once(r, making{route: "retryBackfill", asked: id, answer: created, do: func(ctx context.Context) (*jobs.Job, bool, error) {
		job, err := s.cfg.Jobs.Retry(ctx, id)
		return &job, true, err
	}})
	if err != nil {
		return reply{}, refused(id, err, "only a job that has ended can be retried")
	}
	return rep, nil
}

// commanded is the job that a request without parameters is about.
func commanded(r *http.Request) (uuid.UUID, error) {
	if _, err := query(r); err != nil {
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
		return badRequest("job %s is %s: %s", id, is.Status, rule)
	default:
		return err
	}
}

func (s *Server) showBackfill(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	job, err := s.job(r)
	if err != nil {
		return reply{}, err
	}
	detail, err := s.newJobDetail(r.Context(), job)
	if err != nil {
		return reply{}, err
	}
	return ok(detail), nil
}

// job is the job that the path names, as it is now.
func (s *Server) job(r *http.Request) (jobs.Job, error) {
	id, err := jobID(r)
	if err != nil {
		return jobs.Job{}, err
	}
	job, err := s.cfg.Store.Jobs.Job(r.Context(), id)
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
		return uuid.Nil, notFound("there is no job %s: a job's id is a UUID", quoted(text))
	}
	return id, nil
}

func noJob(id string) error { return notFound("there is no job %s", id) }

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
func (s *Server) listBackfills(r *http.Request) (reply, error) {
	filter, err := parseJobFilter(r)
	if err != nil {
		return reply{}, err
	}
	list := []api.Job{} // an empty list is [], not null
	err = s.cfg.Store.Jobs.EachJob(r.Context(), filter.before, func(j jobs.Job) bool {
		if filter.takes(j) {
			list = append(list, newJobBody(j))
		}
		return len(list) < filter.limit
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, badRequest("before names no job: there is no job %s", filter.before)
	case err != nil:
		return reply{}, err
	}
	return ok(list), nil
}

func parseJobFilter(r *http.Request) (f jobFilter, err error) {
	params, err := query(r, "status", "collection", "did", "limit", "before")
	if err != nil {
		return f, err
	}
	f.status = api.Status(params["status"])
	if !slices.Contains(api.Statuses(), f.status) && f.status != "" {
		return f, badRequest("status %s is none of %s", quoted(params["status"]), fmt.Sprint(api.Statuses()))
	}
	if f.collection, err = parseCollection(params["collection"]); err != nil {
		return f, err
	}
	if f.did, err = parseDID(params["did"]); err != nil {
		return f, err
	}
	if f.limit, err = limitOf(params["limit"], math.MaxInt, maxJobsPage); err != nil {
		return f, err
	}
	if text := params["before"]; text != "" {
		if f.before, err = uuid.Parse(text); err != nil || f.before == uuid.Nil {
			return f, badRequest("before must be the id of a job, it is %s", quoted(text))
		}
	}
	return f, nil
}

// maxJobsPage is the largest limit of the list. Without one, all jobs are listed.
const maxJobsPage = 10_000
