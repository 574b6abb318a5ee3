package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
)

// sessions are the streams under way that go on only as long as their key is good.
type sessions struct {
	mu      sync.Mutex
	revoked uint64 // how many keys have been, since the start
	open    map[uuid.UUID]map[*session]struct{}
}

// session is one stream, which cancel ends.
type session struct{ cancel context.CancelCauseFunc }

// count is how many keys have been revoked. It is asked for before a key is looked
// up, so that one that is revoked in between is noticed.
func (ss *sessions) count() uint64 {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.revoked
}

// join adds a stream, unless a key was revoked since the grant was made out: it must
// then be made out anew. leave must be called in the end.
func (ss *sessions) join(held grant, se *session) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if held.actor.Kind == api.ActorKey && held.revoked != ss.revoked {
		return false
	}
	if ss.open == nil {
		ss.open = map[uuid.UUID]map[*session]struct{}{}
	}
	id := held.actor.KeyID // none, of the configured key: it is never revoked
	if ss.open[id] == nil {
		ss.open[id] = map[*session]struct{}{}
	}
	ss.open[id][se] = struct{}{}
	return true
}

func (ss *sessions) leave(held grant, se *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	id := held.actor.KeyID
	if delete(ss.open[id], se); len(ss.open[id]) == 0 {
		delete(ss.open, id)
	}
}

// revoke ends the streams of a key that opens nothing any more.
func (ss *sessions) revoke(id uuid.UUID) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.revoked++
	for se := range ss.open[id] {
		se.cancel(errKeyRevoked(admin.APIKey{ID: id}))
	}
}

// whileKeyIsGood streams until f is done or the key of the request is revoked or
// expires, whatever f and the client do. f's request has a context that ends then.
func (s *Server) whileKeyIsGood(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request) error) error {
	held, isAdmin := r.Context().Value(grantOf{}).(grant)
	if !isAdmin {
		return f(w, r) // open to all
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	se := &session{cancel: cancel}
	for !s.sessions.join(held, se) {
		var err error
		if held, err = s.authenticate(r); err != nil {
			return err
		}
	}
	defer s.sessions.leave(held, se)
	if !held.expires.IsZero() {
		expired := errKeyExpired(admin.APIKey{ID: held.actor.KeyID})
		timer := time.AfterFunc(held.expires.Sub(s.cfg.Now()), func() { cancel(expired) })
		defer timer.Stop()
	}
	err := s.cutWith(ctx, w, r, f)
	ended := keyEnded(ctx)
	if ended == nil {
		return err
	}
	s.log.InfoContext(r.Context(), "stream ended with its key", "path", r.URL.Path, "key", held.actor.KeyID, "err", ended.why)
	if answer.Begun(w) {
		panic(http.ErrAbortHandler) // not a clean end: there may be more
	}
	return ended
}

// cutWith streams, and breaks off what f writes when ctx ends because of its key.
func (s *Server) cutWith(ctx context.Context, w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request) error) error {
	rc, woken := http.NewResponseController(w), make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(woken)
		if keyEnded(ctx) != nil {
			_ = rc.SetWriteDeadline(time.Now()) // for a write that waits for the client
		}
	})
	answer.SetCut(w, func() error {
		if ended := keyEnded(ctx); ended != nil {
			return ended
		}
		return nil
	})
	defer answer.SetCut(w, nil)
	defer func() {
		if !unhook() {
			<-woken
		}
		if keyEnded(ctx) != nil {
			_ = rc.SetWriteDeadline(time.Now().Add(answer.Timeout)) // for the error, if nothing was written
		}
	}()
	return f(w, r.WithContext(ctx))
}

// keyEnded reports whether ctx has ended because the key opens nothing any more, and
// is the answer that says so.
func keyEnded(ctx context.Context) *keyError {
	if e, is := errors.AsType[keyError](context.Cause(ctx)); is {
		return &e
	}
	return nil
}
