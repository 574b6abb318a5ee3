package server

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store"
)

// createBackfill stores a job and answers before any of it is done.
func (s *Server) createBackfill(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, badRequest("%s: the request goes in the body", err)
	}
	var collection, did string
	if err := decodeBody(r.Body, member{"collection", &collection}, member{"did", &did}); err != nil {
		return reply{}, err
	}
	var req store.Request
	var errCollection, errDID error
	req.Collection, errCollection = parseCollection(collection)
	req.DID, errDID = parseDID(did)
	switch {
	case errCollection != nil && errDID != nil:
		return reply{}, badRequest("%s; %s", errCollection, errDID)
	case errCollection != nil:
		return reply{}, errCollection
	case errDID != nil:
		return reply{}, errDID
	}
	job, err := s.cfg.Jobs.Create(detached(r), req)
	if err != nil {
		return reply{}, err
	}
	// The worker may be further already: the answer is what was asked for.
	return reply{
		status:   http.StatusCreated,
		location: "/admin/backfill/" + job.ID.String(),
		body:     jobRef{ID: job.ID, Status: store.StatusRunning},
	}, nil
}

func (s *Server) cancelBackfill(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	id, err := jobID(r)
	if err != nil {
		return reply{}, err
	}
	if err := decodeBody(r.Body); err != nil {
		return reply{}, err
	}
	_, err = s.cfg.Jobs.Cancel(detached(r), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, noJob(id.String())
	case errors.Is(err, store.ErrMove):
		return reply{}, s.cannotCancel(r, id, err)
	case err != nil:
		return reply{}, err
	}
	return ok(jobRef{ID: id, Status: store.StatusCancelling}), nil
}

// cannotCancel says what the job is instead of running.
func (s *Server) cannotCancel(r *http.Request, id uuid.UUID, refused error) error {
	job, err := s.cfg.Store.Job(detached(r), id)
	if err != nil {
		return refused
	}
	return badRequest("job %s is %s: only a running job can be cancelled", id, job.Status)
}

func (s *Server) showBackfill(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	id, err := jobID(r)
	if err != nil {
		return reply{}, err
	}
	job, err := s.cfg.Store.Job(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, noJob(id.String())
	case err != nil:
		return reply{}, err
	}
	return ok(s.newJobDetail(job)), nil
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
	status     store.Status
	collection syntax.NSID
	did        syntax.DID
	limit      int
	before     uuid.UUID
}

func (f jobFilter) takes(j store.Job) bool {
	return (f.status == "" || j.Status == f.status) &&
		(f.collection == "" || j.Request.Collection == f.collection) &&
		(f.did == "" || j.Request.DID == f.did)
}

// listBackfills answers with a bare array, newest first.
func (s *Server) listBackfills(r *http.Request) (reply, error) {
	filter, err := parseJobFilter(r)
	if err != nil {
		return reply{}, err
	}
	jobs, err := s.cfg.Store.Jobs(r.Context())
	if err != nil {
		return reply{}, err
	}
	if filter.before != uuid.Nil {
		i := slices.IndexFunc(jobs, func(j store.Job) bool { return j.ID == filter.before })
		if i < 0 {
			return reply{}, badRequest("before names no job: there is no job %s", filter.before)
		}
		jobs = jobs[i+1:]
	}
	list := []jobBody{} // an empty list is [], not null
	for _, j := range jobs {
		if len(list) == filter.limit {
			break
		}
		if filter.takes(j) {
			list = append(list, newJobBody(j))
		}
	}
	return ok(list), nil
}

func parseJobFilter(r *http.Request) (f jobFilter, err error) {
	params, err := query(r, "status", "collection", "did", "limit", "before")
	if err != nil {
		return f, err
	}
	f.status = store.Status(params["status"])
	if !slices.Contains(statuses(), f.status) && f.status != "" {
		return f, badRequest("status %s is none of %s", quoted(params["status"]), fmt.Sprint(statuses()))
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

func statuses() []store.Status {
	return []store.Status{
		store.StatusRunning, store.StatusCancelling, store.StatusCancelled, store.StatusCompleted, store.StatusFailed,
	}
}
