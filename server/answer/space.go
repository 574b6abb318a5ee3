package answer

import (
	"net/http"
	"strings"

	"appview/internal/api"
)

// Route is one thing that can be asked for.
type Route struct {
	Method     string // GET also answers HEAD
	Path       string // a pattern of http.ServeMux
	Permission api.Permission
	Handler    http.Handler
}

// Get is a route that is read.
func Get(path string, p api.Permission, h http.Handler) Route {
	return Route{http.MethodGet, path, p, h}
}

// Post is a route that makes or commands something.
func Post(path string, p api.Permission, h http.Handler) Route {
	return Route{http.MethodPost, path, p, h}
}

// Delete is a route that takes something away.
func Delete(path string, p api.Permission, h http.Handler) Route {
	return Route{http.MethodDelete, path, p, h}
}

// Paths are grouped by audience, which decides about keys and the shape of errors.
const (
	AdminSpace = "/admin/"
	APISpace   = "/api/"
	XRPCSpace  = "/xrpc/"

	MetricsPath = "/metrics"
)

// IsAdmin reports whether the path is one of administrators.
func IsAdmin(r *http.Request) bool {
	return r.URL.Path+"/" == AdminSpace || strings.HasPrefix(r.URL.Path, AdminSpace)
}

func isXRPC(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, XRPCSpace) }

// IsOpen reports whether pages of any origin may read the path.
func IsOpen(r *http.Request) bool { return isXRPC(r) || strings.HasPrefix(r.URL.Path, APISpace) }

// allowed is the value of the Allow header for a path.
func allowed(routes []Route) string {
	var list []string
	for _, rt := range routes {
		list = append(list, rt.Method)
		if rt.Method == http.MethodGet {
			list = append(list, http.MethodHead)
		}
	}
	return strings.Join(list, ", ")
}
