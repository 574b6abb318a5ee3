package answer

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"appview/store"
	"appview/store/jobs"
)

// Failure is an answer that is not a success. It is an error so that endpoints
// can return it from wherever they notice.
type Failure struct {
	Status  int
	Name    string      // of the error in XRPC, empty: the usual one of the status
	Text    string      // one sentence for the client
	headers http.Header // beside the usual ones
}

func (f Failure) Error() string { return f.Text }

// Header adds a header to the answer.
func (f *Failure) Header(name, value string) {
	if f.headers == nil {
		f.headers = http.Header{}
	}
	f.headers.Set(name, value)
}

// BadRequest is the answer to what the client has got wrong.
func BadRequest(format string, args ...any) error {
	return Failure{Status: http.StatusBadRequest, Text: fmt.Sprintf(format, args...)}
}

// NotFound is the answer to whoever asks for what is not there.
func NotFound(format string, args ...any) error {
	return Failure{Status: http.StatusNotFound, Text: fmt.Sprintf(format, args...)}
}

// UnknownRoute is the answer where there is no route.
func UnknownRoute(r *http.Request) error {
	if isXRPC(r) {
		return Failure{Status: http.StatusNotImplemented, Text: "Method Not Implemented"}
	}
	return NotFound("there is no route %.200s", r.URL.Path)
}

// WrongMethod is the answer where the routes of a path have other methods.
func WrongMethod(r *http.Request, routes []Route) error {
	allow := allowed(routes)
	f := Failure{
		Status: http.StatusMethodNotAllowed,
		Text:   fmt.Sprintf("%.200s does not answer %.20s: use %s", r.URL.Path, r.Method, allow),
	}
	f.Header("Allow", allow)
	return f
}

// toFailure is the one map from errors to answers. What it does not know is our
// own fault: the client learns no more than that.
func toFailure(err error) Failure {
	var f Failure
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &tooLarge):
		return Failure{Status: http.StatusRequestEntityTooLarge, Text: fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)}
	case errors.Is(err, jobs.ErrMove), errors.Is(err, jobs.ErrNothingLeft):
		return Failure{Status: http.StatusBadRequest, Text: err.Error()}
	case errors.Is(err, store.ErrTooMany):
		return Failure{Status: http.StatusConflict, Text: err.Error()}
	case errors.Is(err, store.ErrNotFound):
		return Failure{Status: http.StatusNotFound, Text: err.Error()}
	case errors.Is(err, store.ErrDiskFull):
		return Failure{Status: http.StatusInsufficientStorage, Text: err.Error()}
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Failure{Status: http.StatusServiceUnavailable, Text: "appview is shutting down, or the request was given up: try again"}
	default:
		return Failure{Status: http.StatusInternalServerError, Text: "something went wrong inside appview: its log tells what, under this request id"}
	}
}

// xrpcName is XRPC's name for a status.
func xrpcName(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return "InvalidRequest"
	case http.StatusNotFound:
		return "NotFound"
	case http.StatusRequestEntityTooLarge:
		return "PayloadTooLarge"
	case http.StatusTooManyRequests:
		return "RateLimitExceeded"
	case http.StatusNotImplemented:
		return "MethodNotImplemented"
	case http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		return "NotEnoughResources"
	default:
		return "InternalServerError"
	}
}
