package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"appview/store"
	"appview/store/jobs"
)

// failure is an answer that is not a success. It is an error so that endpoints
// can return it from wherever they notice.
type failure struct {
	status  int
	name    string      // of the error in XRPC, empty: the usual one of the status
	text    string      // one sentence for the client
	headers http.Header // beside the usual ones
}

func (f failure) Error() string { return f.text }

func (f *failure) header(name, value string) {
	if f.headers == nil {
		f.headers = http.Header{}
	}
	f.headers.Set(name, value)
}

func badRequest(format string, args ...any) error {
	return failure{status: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return failure{status: http.StatusNotFound, text: fmt.Sprintf(format, args...)}
}

func unknownRoute(r *http.Request) error {
	if isXRPC(r) {
		return failure{status: http.StatusNotImplemented, text: "Method Not Implemented"}
	}
	return notFound("there is no route %.200s", r.URL.Path)
}

func wrongMethod(r *http.Request, routes []route) error {
	allow := allowed(routes)
	f := failure{
		status: http.StatusMethodNotAllowed,
		text:   fmt.Sprintf("%.200s does not answer %.20s: use %s", r.URL.Path, r.Method, allow),
	}
	f.header("Allow", allow)
	return f
}

// toFailure is the one map from errors to answers. What it does not know is our
// own fault: the client learns no more than that.
func toFailure(err error) failure {
	var f failure
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &tooLarge):
		return failure{status: http.StatusRequestEntityTooLarge, text: fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)}
	case errors.Is(err, jobs.ErrMove), errors.Is(err, jobs.ErrNothingLeft):
		return failure{status: http.StatusBadRequest, text: err.Error()}
	case errors.Is(err, store.ErrTooMany):
		return failure{status: http.StatusConflict, text: err.Error()}
	case errors.Is(err, store.ErrNotFound):
		return failure{status: http.StatusNotFound, text: err.Error()}
	case errors.Is(err, store.ErrDiskFull):
		return failure{status: http.StatusInsufficientStorage, text: err.Error()}
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return failure{status: http.StatusServiceUnavailable, text: "appview is shutting down, or the request was given up: try again"}
	default:
		return failure{status: http.StatusInternalServerError, text: "something went wrong inside appview: its log tells what, under this request id"}
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
