package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime/debug"

	"appview/internal/api"
	"appview/server/answer"
)

// Handler answers all requests.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	s.serving.RLock()
	defer s.serving.RUnlock()
	if s.closed {
		panic(http.ErrAbortHandler) // a connection that came too late
	}
	r, outside := s.withoutBase(r)
	w := s.out.NewWriter(rw, r)
	defer w.End()
	defer s.observe(w, r)
	w.Header().Set(api.RequestID, rand.Text())
	w.Header().Set("X-Content-Type-Options", "nosniff")
	defer s.recovered(w, r)
	if outside != nil {
		s.failOutside(w, r)
		return
	}
	if !isClean(r.URL.Path) { // the mux would answer with a redirect, as HTML
		s.dispatch(nil).ServeHTTP(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// isClean reports whether a path is written the way the mux writes it.
func isClean(p string) bool {
	clean := path.Clean(p)
	return clean == p || (clean != "/" && clean+"/" == p)
}

// recovered answers a request whose handler panicked. The cause goes to the log only.
func (s *Server) recovered(w *answer.Writer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, isErr := cause.(error); isErr && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	s.out.Fail(w, r, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}
