package transport

import (
	"fmt"
	"net/http"
	"strings"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// Error is how every call fails, except by the caller's context or by being parked.
type Error struct {
	Reason  outcome.Reason
	Op      string      // what was asked: the XRPC method, "look up", "parse host"
	Host    polite.Host // who was asked; empty when nobody was
	Status  int         // HTTP status, 0 without an answer
	Name    string      // XRPC error name, as far as there was one
	Message string      // XRPC error message, cut to a sentence's length
	Err     error       // cause, or nil

	// Inferred says that outcome.ReasonNotFound is nobody's word: the host said that there is
	// nothing, not what there is not, and it answers the same question for another account.
	Inferred bool
}

// Error says what was asked of whom and what came of it, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Host != "" {
		b.WriteString(" at " + string(e.Host))
	}
	b.WriteString(": " + string(e.Reason))
	if e.Status != 0 {
		fmt.Fprintf(&b, ": HTTP %d", e.Status)
	}
	if e.Name != "" {
		fmt.Fprintf(&b, " %s", e.Name)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, " %q", e.Message)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NoSuchMethod reports whether a host refused without a word about the account: it has no
// such method, or no such account, or it is a proxy with nothing behind it.
func (e *Error) NoSuchMethod() bool {
	return e.lacksMethod() || e.NothingThere() || e.Status == http.StatusNotImplemented || e.Status == http.StatusMethodNotAllowed
}

// lacksMethod reports whether a host said that it has no such method.
func (e *Error) lacksMethod() bool {
	switch Letters(e.Name) {
	case "methodnotimplemented", "xrpcnotsupported", "invalidmethod":
		return true
	default:
		return false
	}
}

// NothingThere reports whether a host said that there is nothing, and not what there is not.
func (e *Error) NothingThere() bool {
	_, named := accountReason(e.Status, e.Name, e.Message)
	return (e.Status == http.StatusNotFound || e.Status == http.StatusGone) && !named && !e.lacksMethod()
}
