package control

import (
	"context"
	"errors"
	"net/http"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/index"
)

// deleteRecords deletes what the filter chooses and is there now. The store works
// in steps and remembers what is left, so that a stop in between loses nothing.
func (ctl *Control) deleteRecords(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "collection", "did")
	if err != nil {
		return answer.Reply{}, err
	}
	filter, err := answer.ParseFilter(params)
	if err != nil {
		return answer.Reply{}, err
	}
	if filter == (index.Filter{}) {
		return answer.Reply{}, answer.BadRequest("name a collection, a did, or both: nothing was deleted")
	}
	ctx, cancel := answer.UntilStop(r)
	defer cancel()
	n, err := ctl.cfg.Store.Collections.DeleteRecords(ctx, filter) //nolint:contextcheck // it ends with the server, not with the client
	if err != nil {
		return answer.Reply{}, deletionStopped(err)
	}
	ctl.cfg.Log.InfoContext(r.Context(), "records deleted", "collection", filter.Collection, "did", filter.DID, "deleted", n)
	return answer.OK(api.Deleted{Deleted: n}), nil
}

// deletionStopped says what becomes of a deletion that a stop of the server has cut
// off.
func deletionStopped(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return answer.Failure{
			Status: http.StatusServiceUnavailable,
			Text:   "appview is shutting down: a deletion that has begun goes on at the next start",
		}
	}
	return err
}
