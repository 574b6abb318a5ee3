package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/jobs"
)

func (ctl *Control) newCollectionBody(c jobs.Collection) api.Collection {
	b := api.Collection{
		Collection: c.NSID, Records: c.Held.Records, Repos: c.Held.Repos, TrackedSince: api.Stamp(c.Since), Age: ageOf(c.Fresh, ctl.cfg.Now()),
	}
	if at := ctl.cfg.Jobs.RefreshAt(c); !at.IsZero() && !c.Covered {
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

func (ctl *Control) listCollections(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	list, err := ctl.cfg.Store.Collections.List(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	body := api.Collections{Collections: make([]api.Collection, len(list))}
	for i, c := range list {
		body.Collections[i] = ctl.newCollectionBody(c)
	}
	return answer.OK(body), nil
}

// addCollection tracks a collection and starts to read it.
func (ctl *Control) addCollection(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, answer.BadRequest("%s: the collection goes in the body", err)
	}
	var text string
	if err := answer.DecodeBody(r.Body, answer.Optional("collection", &text)); err != nil {
		return answer.Reply{}, err
	}
	c, err := answer.ParseCollection(text)
	switch {
	case err != nil:
		return answer.Reply{}, err
	case c == "":
		return answer.Reply{}, answer.BadRequest("name the collection to track in collection")
	}
	return ctl.once(r, making{
		route: "addCollection", asked: c,
		do: func(ctx context.Context) (*jobs.Job, bool, error) {
			job, added, err := ctl.cfg.Jobs.AddCollection(ctx, c)
			if err == nil && added {
				ctl.cfg.Log.InfoContext(ctx, "collection tracked", "collection", c)
			}
			return job, added, err
		},
		answer: func(job *jobs.Job, added bool) answer.Reply {
			body := api.Added{Collection: c}
			if job != nil {
				body.Job = &api.JobRef{ID: job.ID, Status: job.Status}
			}
			if !added {
				return answer.OK(body)
			}
			return answer.Reply{Status: http.StatusCreated, Body: body}
		},
	})
}

// removeCollection ceases to track a collection. What becomes of its records is for
// the client to say: there is no way back.
func (ctl *Control) removeCollection(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "collection", "records")
	if err != nil {
		return answer.Reply{}, err
	}
	c, err := answer.ParseCollection(params["collection"])
	switch {
	case err != nil:
		return answer.Reply{}, err
	case c == "":
		return answer.Reply{}, answer.BadRequest("name the collection to remove in the parameter collection")
	}
	what := params["records"]
	switch what {
	case "keep", "delete":
	case "":
		return answer.Reply{}, answer.BadRequest("say what becomes of the records of %s: records=keep goes on serving them as they are, records=delete deletes them", c)
	default:
		return answer.Reply{}, answer.BadRequest("records %s is neither keep nor delete", answer.Quoted(what))
	}
	if err := answer.DecodeBody(r.Body); err != nil {
		return answer.Reply{}, err
	}
	ctx, cancel := answer.UntilStop(r)
	defer cancel()
	n, err := ctl.cfg.Store.Collections.RemoveCollection(ctx, c, what == "delete") //nolint:contextcheck // it ends with the server, not with the client
	switch {
	case errors.Is(err, store.ErrNotFound):
		return answer.Reply{}, answer.NotFound("%s is not tracked", c)
	case errors.Is(err, jobs.ErrBusy):
		return answer.Reply{}, answer.Failure{Status: http.StatusConflict, Text: err.Error() + ": wait for its end, or cancel it"}
	case err != nil:
		return answer.Reply{}, deletionStopped(err)
	}
	ctl.cfg.Log.InfoContext(r.Context(), "collection no longer tracked", "collection", c, "deleted", n)
	return answer.OK(api.Removed{Collection: c, Deleted: n}), nil
}

// ageOf is how old the index is in a collection.
func ageOf(f jobs.Freshness, now time.Time) api.Age {
	is := !f.SyncedAt.IsZero()
	return api.Age{
		SyncedAt:   api.Known(api.Stamp(f.SyncedAt), is),
		AgeSeconds: api.Known(int64(max(now.Sub(f.SyncedAt), 0)/time.Second), is),
	}
}
