package answer

import (
	"maps"
	"net/http"
	"time"

	"appview/internal/api"
)

// endpoint computes a reply. It never sees the ResponseWriter.
type endpoint func(r *http.Request) (Reply, error)

// Answer writes what an endpoint replies.
func (a *Answers) Answer(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		rep, err := e(r)
		if err == nil {
			err = a.Send(w, r, rep)
		}
		if err != nil {
			a.Fail(w, r, err)
		}
	})
}

// Unhurried is for answers that may take longer to compute than a connection may
// otherwise be silent. net/http ends the context of a request whose connection
// has passed its read deadline, although all of the request was read.
func Unhurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{}) // without deadlines there is nothing to lift
		_ = rc.SetWriteDeadline(time.Time{})
		if own, isOwn := w.(*Writer); isOwn {
			own.share.extend = nil
		}
		h.ServeHTTP(w, r)
	})
}

// lingerTimeout is how long a connection takes in what a client still sends of a body
// that is not read, so that the answer reaches it.
const lingerTimeout = 500 * time.Millisecond

// BodyUnread is for commands that look at no body. One that is sent all the same is
// neither read nor waited for, and the connection closes behind the answer.
func BodyUnread(h http.Handler) http.Handler {
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

// Stream is for answers too long to be computed first, or that go on. An error that
// comes after the first byte breaks the connection: a client must never take a part
// for the whole. So does the end of the key: f's context ends with it, and what f
// writes afterwards goes nowhere.
func (a *Answers) Stream(f func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Buffering", "no") // asks nginx to pass on what comes, when it comes
		if err := a.WhileKeyIsGood(w, r, f); err != nil {
			a.Fail(w, r, err)
		}
	})
}

// Fail writes an error in the shape of the path's audience.
func (a *Answers) Fail(w http.ResponseWriter, r *http.Request, err error) {
	f := toFailure(err)
	id := w.Header().Get(api.RequestID)
	if f.Status == http.StatusInternalServerError {
		a.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "request_id", id, "err", err)
	} else {
		id = ""
	}
	if Begun(w) {
		panic(http.ErrAbortHandler) // net/http's way to break the connection
	}
	maps.Copy(w.Header(), f.headers)
	var body any = api.Error{Error: f.Text, RequestID: id}
	if isXRPC(r) {
		name := f.Name
		if name == "" {
			name = xrpcName(f.Status)
		}
		body = api.XRPCError{Error: name, Message: f.Text}
	}
	if err := a.Send(w, r, Reply{Status: f.Status, Body: body}); err != nil {
		a.log.ErrorContext(r.Context(), "write error answer", "path", r.URL.Path, "err", err)
	}
}
