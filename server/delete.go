package server

import (
	"context"
	"errors"
	"net/http"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
)

// deleteRecords deletes what the filter chooses and is there now. The store works
// in steps and remembers what is left, so that a stop in between loses nothing.
func (s *Server) deleteRecords(r *http.Request) (reply, error) {
	params, err := query(r, "collection", "did")
	if err != nil {
		return reply{}, err
	}
	filter, err := parseFilter(params)
	if err != nil {
		return reply{}, err
	}
	if filter == (index.Filter{}) {
		return reply{}, badRequest("name a collection, a did, or both: nothing was deleted")
	}
	ctx, cancel := untilStop(r)
	defer cancel()
	n, err := s.cfg.Store.Collections.DeleteRecords(ctx, filter) //nolint:contextcheck // it ends with the server, not with the client
	if err != nil {
		return reply{}, deletionStopped(err)
	}
	s.log.InfoContext(r.Context(), "records deleted", "collection", filter.Collection, "did", filter.DID, "deleted", n)
	return ok(api.Deleted{Deleted: n}), nil
}

// deletionStopped says what becomes of a deletion that a stop of the server has cut
// off.
func deletionStopped(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return failure{
			status: http.StatusServiceUnavailable,
			text:   "appview is shutting down: a deletion that has begun goes on at the next start",
		}
	}
	return err
}
