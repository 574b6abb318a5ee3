package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"appview/internal/api"
	"appview/server/answer"
)

// A page of a stranger's can have its own name lead to this machine, or to another one of
// its reader's network (DNS rebinding). The browser then takes this server for the page's
// own, and lets the page read what is answered. It still sends the page's name as Host. So
// what needs no key, and is not meant for strangers, is answered only under names that no
// stranger can own.

// ownSuffixes end names that the public DNS has not: localhost and internal are reserved,
// local is answered within a network only, and svc by a cluster. That of a cluster's whole
// names, svc.cluster.local, is one of local.
var ownSuffixes = []string{".localhost", ".local", ".internal", ".svc"} //nolint:gochecknoglobals // a table that is never changed

// ParseHostName reads a name under which the server is asked, as it is configured.
func ParseHostName(text string) (string, error) {
	if !validHost(text) {
		return "", fmt.Errorf("%q is no host name, such as appview.example.com: give each name by itself, without scheme, port, path and asterisk, "+
			"and one of other letters in its xn-- form", text)
	}
	return canonicalHost(text), nil
}

// hostNames are the configured names under which no page of a stranger's can be.
func (cfg Config) hostNames() (names []string, err error) {
	if cfg.PublicURL != nil {
		names = append(names, canonicalHost(cfg.PublicURL.Hostname()))
	}
	var errs []error
	for _, text := range cfg.AllowHosts {
		name, err := ParseHostName(text)
		names, errs = append(names, name), append(errs, err)
	}
	return names, errors.Join(errs...)
}

// GuardMetrics has h answer without a key only under a name that no stranger can own, or
// over a socket, which no page can reach. With a key that may read stats it answers under
// any name. X-Forwarded-Host is not looked at: whoever asks may have written it.
func (s *Server) GuardMetrics(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.mayMeasure(r); err != nil {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			s.out.Fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) mayMeasure(r *http.Request) error {
	if isOverSocket(r) || s.isOwnName(r.Host) {
		return nil
	}
	if _, err := bearer(r); err != nil {
		s.strangers.noteName(r)
		return errStrangeName(r.Host)
	}
	held, err := s.identify(r)
	if err == nil && !held.allows(api.StatsRead) {
		return forbidden(api.StatsRead)
	}
	return err
}

func errStrangeName(header string) error {
	asked := "to a request that names no host"
	if header != "" {
		asked = fmt.Sprintf("under the name %.200q, which a stranger may own", header)
	}
	return answer.Failure{
		Status: http.StatusMisdirectedRequest,
		Text: "metrics and profiles are not answered " + asked + ": start the server with --allow-host NAME if the name is yours, " +
			"or ask by an address, as localhost, or with a key that has the permission " + string(api.StatsRead),
	}
}

// isOwnName reports whether the value of a Host header is a name that no stranger can own.
func (s *Server) isOwnName(header string) bool {
	host, ok := hostInHeader(header)
	if !ok || !validHost(host) {
		return false
	}
	name := canonicalHost(host)
	switch {
	case isAddress(name), name == "localhost", slices.Contains(s.hostNames, name):
		return true
	case !strings.Contains(host, "."):
		return true // with a dot at its end it would be a top-level domain, which somebody owns
	}
	return slices.ContainsFunc(ownSuffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// hostInHeader is the host in the value of a Host header: without the port, and without the
// brackets of an IPv6 address. Without them such an address cannot be told from a port.
func hostInHeader(header string) (host string, ok bool) {
	if inside, isBracketed := strings.CutPrefix(header, "["); isBracketed {
		host, after, isClosed := strings.Cut(inside, "]")
		at, err := netip.ParseAddr(host)
		return host, isClosed && err == nil && at.Is6() && isPort(after)
	}
	host, _, _ = strings.Cut(header, ":")
	return host, isPort(header[len(host):])
}

// isPort reports whether text is what may follow a host: nothing, or a colon and a number.
func isPort(text string) bool {
	digits, hasColon := strings.CutPrefix(text, ":")
	return text == "" || hasColon && len(digits) <= 5 && !strings.ContainsFunc(digits, func(c rune) bool { return c < '0' || c > '9' })
}

// canonicalHost is a host in lower case, without the dot that a name may end with.
func canonicalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// validHost reports whether host is an address, or could be a name in the DNS.
func validHost(host string) bool {
	return isAddress(host) || validName(strings.TrimSuffix(host, "."))
}

// maxName is the longest name that the DNS has, as it is written.
const maxName = 253

// validName reports whether name is one or more labels of letters, digits, hyphens and
// underscores. Containers and services have underscores in theirs.
func validName(name string) bool {
	if len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, func(c rune) bool { return !inLabel(c) }) {
			return false
		}
	}
	return true
}

func inLabel(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
