package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"runtime/debug"
	"time"

	"appview/internal/api"
)

// endpoint computes a reply. It never sees the ResponseWriter.
type endpoint func(r *http.Request) (reply, error)

// answer writes what an endpoint replies.
func (s *Server) answer(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		rep, err := e(r)
		if err == nil {
			err = s.send(w, r, rep)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// unhurried is for answers that may take longer to compute than a connection may
// otherwise be silent. net/http ends the context of a request whose connection
// has passed its read deadline, although all of the request was read.
func unhurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{}) // without deadlines there is nothing to lift
		_ = rc.SetWriteDeadline(time.Time{})
		if own, isOwn := w.(*writer); isOwn {
			own.share.extend = nil
		}
		h.ServeHTTP(w, r)
	})
}

// lingerTimeout is how long a connection takes in what a client still sends of a body
// that is not read, so that the answer reaches it.
const lingerTimeout = 500 * time.Millisecond

// bodyUnread is for commands that look at no body. One that is sent all the same is
// neither read nor waited for, and the connection closes behind the answer.
func bodyUnread(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close") // else net/http reads the body before it answers
		h.ServeHTTP(w, r)
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTimeout)) // without deadlines there is nothing to bound
	})
}

// stream is for answers too long to be computed first, or that go on. An error that
// comes after the first byte breaks the connection: a client must never take a part
// for the whole. So does the end of the key: f's context ends with it, and what f
// writes afterwards goes nowhere.
func (s *Server) stream(f func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Buffering", "no") // asks nginx to pass on what comes, when it comes
		if err := s.whileKeyIsGood(w, r, f); err != nil {
			s.fail(w, r, err)
		}
	})
}

// fail writes an error in the shape of the path's audience.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := toFailure(err)
	id := w.Header().Get(api.RequestID)
	if f.status == http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "request_id", id, "err", err)
	} else {
		id = ""
	}
	if begun(w) {
		panic(http.ErrAbortHandler) // net/http's way to break the connection
	}
	maps.Copy(w.Header(), f.headers)
	var body any = api.Error{Error: f.text, RequestID: id}
	if isXRPC(r) {
		name := f.name
		if name == "" {
			name = xrpcName(f.status)
		}
		body = api.XRPCError{Error: name, Message: f.text}
	}
	if err := s.send(w, r, reply{status: f.status, body: body}); err != nil {
		s.log.ErrorContext(r.Context(), "write error answer", "path", r.URL.Path, "err", err)
	}
}

// Handler answers all requests.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	s.serving.RLock()
	defer s.serving.RUnlock()
	if s.closed {
		panic(http.ErrAbortHandler) // a connection that came too late
	}
	r, outside := s.withoutBase(r)
	w := s.newWriter(rw, r)
	defer s.budget.release(&w.share)
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

// isClean tells whether a path is written the way the mux writes it.
func isClean(p string) bool {
	clean := path.Clean(p)
	return clean == p || (clean != "/" && clean+"/" == p)
}

// recovered answers a request whose handler panicked. The cause goes to the log only.
func (s *Server) recovered(w *writer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, isErr := cause.(error); isErr && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	s.fail(w, r, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}

// writer knows whether an answer has begun, when, and with what.
type writer struct {
	http.ResponseWriter

	asked  time.Time
	begun  bool
	status int
	took   time.Duration // until it began
	cut    func() error  // why nothing is written any more; nil: never
	share  answerShare
}

// newWriter is the writer of the answer to r.
func (s *Server) newWriter(rw http.ResponseWriter, r *http.Request) *writer {
	w := &writer{ResponseWriter: rw, asked: time.Now()}
	w.share.budget = s.budget
	conn := r.Context().Value(connection{})
	rc := http.NewResponseController(rw)
	w.share.abort = func() {
		dropUnsent(conn)
		_ = rc.SetWriteDeadline(time.Now())
	}
	w.share.extend = func(d time.Duration) { _ = rc.SetWriteDeadline(w.asked.Add(s.answerTime + d)) }
	return w
}

// WriteHeader begins the answer.
func (w *writer) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write begins the answer if nothing has.
func (w *writer) Write(p []byte) (n int, err error) {
	if w.cut != nil {
		if err := w.cut(); err != nil {
			return 0, err
		}
	}
	w.begin(http.StatusOK)
	w.share.budget.printed(&w.share)
	for len(p) > answerPiece {
		m, err := w.piece(p[:answerPiece])
		if n += m; err != nil {
			return n, err
		}
		p = p[answerPiece:]
	}
	m, err := w.piece(p)
	return n + m, err
}

func (w *writer) piece(p []byte) (int, error) {
	w.share.beginPiece()
	n, err := w.ResponseWriter.Write(p)
	w.share.endPiece(n)
	return n, err
}

func (w *writer) begin(status int) {
	if !w.begun {
		w.begun, w.status, w.took = true, status, time.Since(w.asked)
	}
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func begun(w http.ResponseWriter) bool {
	own, isOwn := w.(*writer)
	return isOwn && own.begun
}

// detached is the context of a write: a client that goes away must not leave it
// in doubt whether the write was made.
func detached(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// stopping is the key under which the context of a request holds the one that
// ends when the server begins to stop. Requests outlive that one for a while.
type stopping struct{}

// untilStop is the context of a write in many steps: the client may go away, but
// a server that stops does not wait for all of them.
func untilStop(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(detached(r))
	stop, isRun := r.Context().Value(stopping{}).(context.Context)
	if !isRun {
		return ctx, cancel
	}
	unhook := context.AfterFunc(stop, cancel)
	return ctx, func() { unhook(); cancel() }
}
