package server

import (
	"context"
	"errors"
	"net/http"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
)

func (s *Server) newCollectionBody(c jobs.Collection) api.Collection {
	b := api.Collection{
		Collection: c.NSID, Records: c.Held.Records, Repos: c.Held.Repos, TrackedSince: api.Stamp(c.Since), Age: s.age(c.Fresh),
	}
	if at := s.cfg.Jobs.RefreshAt(c); !at.IsZero() && !c.Covered {
		b.RefreshAt = api.Known(api.Stamp(at), true)
	}
	if j := c.Job; j != nil {
		row := newJobBody(*j)
		b.LastJob = &api.LastJob{
			ID: j.ID, Status: j.Status, Origin: originOf(*j), Error: row.Error,
			CreatedAt: row.CreatedAt, StartedAt: row.StartedAt, CompletedAt: row.CompletedAt,
		}
	}
	return b
}

func (s *Server) listCollections(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	list, err := s.cfg.Store.Collections.List(r.Context())
	if err != nil {
		return reply{}, err
	}
	body := api.Collections{Collections: make([]api.Collection, len(list))}
	for i, c := range list {
		body.Collections[i] = s.newCollectionBody(c)
	}
	return ok(body), nil
}

// addCollection tracks a collection and starts to read it.
func (s *Server) addCollection(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, badRequest("%s: the collection goes in the body", err)
	}
	var text string
	if err := decodeBody(r.Body, member{"collection", &text}); err != nil {
		return reply{}, err
	}
	c, err := parseCollection(text)
	switch {
	case err != nil:
		return reply{}, err
	case c == "":
		return reply{}, badRequest("name the collection to track in collection")
	}
	return s.once(r, making{
		route: "addCollection", asked: c,
		do: func(ctx context.Context) (*jobs.Job, bool, error) {
			job, added, err := s.cfg.Jobs.AddCollection(ctx, c)
			if err == nil && added {
				s.log.InfoContext(ctx, "collection tracked", "collection", c)
			}
			return job, added, err
		},
		answer: func(job *jobs.Job, added bool) reply {
			body := api.Added{Collection: c}
			if job != nil {
				body.Job = &api.JobRef{ID: job.ID, Status: job.Status}
			}
			if !added {
				return ok(body)
			}
			return reply{status: http.StatusCreated, body: body}
		},
	})
}

// removeCollection ceases to track a collection. What becomes of its records is for
// the client to say: there is no way back.
func (s *Server) removeCollection(r *http.Request) (reply, error) {
	params, err := query(r, "collection", "records")
	if err != nil {
		return reply{}, err
	}
	c, err := parseCollection(params["collection"])
	switch {
	case err != nil:
		return reply{}, err
	case c == "":
		return reply{}, badRequest("name the collection to remove in the parameter collection")
	}
	what := params["records"]
	switch what {
	case "keep", "delete":
	case "":
		return reply{}, badRequest("say what becomes of the records of %s: records=keep goes on serving them as they are, records=delete deletes them", c)
	default:
		return reply{}, badRequest("records %s is neither keep nor delete", quoted(what))
	}
	if err := decodeBody(r.Body); err != nil {
		return reply{}, err
	}
	ctx, cancel := untilStop(r)
	defer cancel()
	n, err := s.cfg.Store.Collections.RemoveCollection(ctx, c, what == "delete") //nolint:contextcheck // it ends with the server, not with the client
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, notFound("%s is not tracked", c)
	case errors.Is(err, jobs.ErrBusy):
		return reply{}, failure{status: http.StatusConflict, text: err.Error() + ": wait for its end, or cancel it"}
	case err != nil:
		return reply{}, deletionStopped(err)
	}
	s.log.InfoContext(r.Context(), "collection no longer tracked", "collection", c, "deleted", n)
	return ok(api.Removed{Collection: c, Deleted: n}), nil
}
