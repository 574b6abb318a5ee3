package server

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"appview/server/answer"
	"appview/server/openapi"
)

// segmentPattern is a segment of a base path. It needs no percent-encoding, so that the
// path is written in one way only.
var segmentPattern = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`) //nolint:gochecknoglobals // a table that is never changed

// ParseBasePath reads the path that all routes stand behind. It returns the path without
// the slash at its end, which is optional: / becomes the empty path.
func ParseBasePath(text string) (string, error) {
	base := strings.TrimSuffix(text, "/")
	if base == "" {
		return "", nil
	}
	if !strings.HasPrefix(base, "/") {
		return "", fmt.Errorf("the base path %q does not begin with a slash: give a path such as /appview/", text)
	}
	for segment := range strings.SplitSeq(base[1:], "/") {
		switch {
		case segment == "":
			return "", fmt.Errorf("the base path %q has an empty segment: give a path such as /appview/", text)
		case segment == "." || segment == "..":
			return "", fmt.Errorf("the base path %q has the segment %q, which leads elsewhere: give a path such as /appview/", text, segment)
		case !segmentPattern.MatchString(segment):
			return "", fmt.Errorf("the base path %q may hold letters, digits and any of -._~ between its slashes, nothing else and no %%-escapes: give a path such as /appview/", text)
		}
	}
	pattern, err := routeBelow(base)
	if err != nil {
		return "", err
	}
	if pattern != "" {
		return "", fmt.Errorf("the base path %q is the beginning of the route %s: choose another, such as /appview/", text, pattern)
	}
	return base, nil
}

// routeBelow is a route whose path is base or begins with it; empty if there is none.
// Over a socket both would mean the same address.
func routeBelow(base string) (pattern string, err error) {
	paths, err := openapi.Paths()
	if err != nil {
		return "", err
	}
	segments := strings.Split(base, "/")
	for _, path := range paths {
		of := strings.Split(path, "/")
		if len(of) < len(segments) {
			continue
		}
		if slices.EqualFunc(of[:len(segments)], segments, func(a, b string) bool { return a == b || strings.HasPrefix(a, "{") }) {
			return path, nil
		}
	}
	return "", nil
}

// errOutside says that a path is not behind the base path.
var errOutside = errors.New("outside of the base path")

// withoutBase is the request without the base path, by which all routes are known. What
// is asked over a socket may leave the base path out: the address of a socket has no
// place for it. So may probes and scrapers, who mostly do not come through the proxy.
func (s *Server) withoutBase(r *http.Request) (*http.Request, error) {
	if s.cfg.BasePath == "" {
		return r, nil
	}
	if below, is := belowBase(r, s.cfg.BasePath); is {
		return below, nil
	}
	if r.URL.Path != s.cfg.BasePath && (isOverSocket(r) || isProbe(r.URL.Path)) {
		return r, nil
	}
	return r, errOutside
}

// belowBase is a copy of the request with what its path has below base, if it is there.
func belowBase(r *http.Request, base string) (*http.Request, bool) {
	rest, is := strings.CutPrefix(r.URL.Path, base)
	if !is || !strings.HasPrefix(rest, "/") {
		return nil, false
	}
	u := *r.URL
	u.Path, u.RawPath = rest, ""
	if r.URL.RawPath != "" { // the path is escaped in a way of its own, maybe within base
		u.RawPath = belowSegments(r.URL.RawPath, strings.Count(base, "/"))
		if same, err := url.PathUnescape(u.RawPath); err != nil || same != rest {
			return nil, false // an escaped slash ends no segment
		}
	}
	below := *r
	below.URL = &u
	return &below, true
}

// belowSegments is what stands behind so many segments of a path.
func belowSegments(path string, segments int) string {
	for at := range len(path) {
		if path[at] == '/' {
			if segments--; segments < 0 {
				return path[at:]
			}
		}
	}
	return ""
}

// pathForClients is the path of a route as clients reach it: behind that of the public
// URL, which the proxy may strip, or else behind the base path.
func (s *Server) pathForClients(route string) string {
	if u := s.cfg.PublicURL; u != nil && u.Path != "" {
		return u.EscapedPath() + route
	}
	return s.cfg.BasePath + route
}

// isProbe reports whether the path is asked by those who watch over the process.
func isProbe(path string) bool { return path == "/health" || path == "/ready" || path == "/metrics" }

// isOverSocket reports whether the request came over a Unix socket.
func isOverSocket(r *http.Request) bool {
	addr, is := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return is && addr.Network() == "unix"
}

// failOutside answers a request for a path that is not behind the base path. Without its
// slash the base path leads to the page, by an address that is relative: a proxy may
// show another one to the browser.
func (s *Server) failOutside(w http.ResponseWriter, r *http.Request) {
	isRead := r.Method == http.MethodGet || r.Method == http.MethodHead
	if r.URL.Path == s.cfg.BasePath && isRead {
		to := "./" + s.cfg.BasePath[strings.LastIndex(s.cfg.BasePath, "/")+1:] + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		w.Header().Set("Cache-Control", "no-cache") // the next start may have another base path
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	s.out.Fail(w, r, answer.NotFound("there is no route %.200s: everything is below %s/ here (--base-path)", r.URL.Path, s.cfg.BasePath))
}
