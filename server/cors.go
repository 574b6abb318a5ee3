package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"appview/internal/api"
	"appview/server/answer"
)

// ParseOrigin reads an origin whose pages may use the admin API, as it is configured. It
// has to be what browsers send, to the letter.
func ParseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || !validHost(u.Hostname()) || !validPort(u.Port()) ||
		u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		return "", fmt.Errorf("%q is no origin of a page, such as https://admin.example.com or http://localhost:8080: "+
			"it is a scheme, a host and perhaps a port; each is given by itself, and there is none for all", text)
	}
	if sent := sentOrigin(u); sent != text {
		return "", fmt.Errorf("%q is not how browsers write the origin of a page: write %s", text, sent)
	}
	return text, nil
}

// checkOrigins finds every mistake in the configured origins.
func (cfg Config) checkOrigins() error {
	var errs []error
	for _, origin := range cfg.CORSOrigins {
		_, err := ParseOrigin(origin)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sentOrigin is the origin of u as browsers send it.
func sentOrigin(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if at, err := netip.ParseAddr(host); err == nil && at.Is6() {
		host = "[" + at.WithZone("").String() + "]"
	}
	port := u.Port()
	if port == "" || port == map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		return u.Scheme + "://" + host
	}
	return u.Scheme + "://" + host + ":" + strings.TrimLeft(port, "0")
}

// What pages of other origins may send and read. Permission to read says nothing about
// keys: whoever needs one has to send it.
const (
	publicMethods = "GET, HEAD"
	adminMethods  = "GET, HEAD, POST, DELETE"
	// The asterisk does not cover Authorization, which clients that are logged in
	// elsewhere may send.
	publicHeaders = "*, Authorization"
	adminHeaders  = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID"

	publicExposed = "ETag, Retry-After, " + api.SyncedAt + ", " + api.RequestID
	adminExposed  = publicExposed + ", Content-Disposition, Location, WWW-Authenticate"

	publicMaxAge = "86400" // of what a browser was told, in seconds
	adminMaxAge  = "600"   // the operator may think better of it
)

// crossOrigin says which pages of other origins may read the answer: of public reads all,
// of everything else those of the configured origins. Errors say so too, or a page could
// not read them. It reports whether that was all that was asked.
//
// Metrics are left out: they need no key, and no page has to read them.
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) (answered bool) {
	h := w.Header()
	if answer.IsOpen(r) {
		openTo(h)
		// What does not exist is said to whoever then asks for it.
		return r.Method == http.MethodOptions && preflight(w, publicMethods, publicHeaders, publicMaxAge)
	}
	if len(s.cfg.CORSOrigins) == 0 || r.URL.Path == answer.MetricsPath {
		return false
	}
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(s.cfg.CORSOrigins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", adminExposed)
	isPreflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	return isPreflight && preflight(w, adminMethods, adminHeaders, adminMaxAge)
}

// openTo lets pages of any origin read an answer, and has caches ask whether what
// they keep is still so: an account may be gone the next moment.
func openTo(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", publicExposed)
	h.Set("Cache-Control", "no-cache")
}

// preflight tells a browser what pages of an origin that may read here may send.
func preflight(w http.ResponseWriter, methods, headers, maxAge string) (answered bool) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", headers)
	h.Set("Access-Control-Max-Age", maxAge)
	w.WriteHeader(http.StatusNoContent)
	return true
}
