package network

import (
	"fmt"
	"strings"
	"time"

	"appview/network/outcome"
)

// Error is how every call of this package fails, except by the caller's context
// or by being parked.
type Error struct {
	Reason  outcome.Reason
	Op      string // what was asked: the XRPC method, "look up", "parse host"
	Host    Host   // who was asked; empty when nobody was
	Status  int    // HTTP status, 0 without an answer
	Name    string // XRPC error name, as far as there was one
	Message string // XRPC error message, cut to a sentence's length
	Err     error  // cause, or nil

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

// Why a call is parked.
const (
	WhyRateLimited = "rate_limited" // the host answered 429, 503 with Retry-After, or says that its quota is spent
	WhyPaced       = "paced"        // the host is slowed so far that the next turn is not soon
	WhyDown        = "down"         // the breaker is open
	WhyNetwork     = "network"      // our own network is gone
	WhyDisk        = "disk"         // there is no room for a large repo on our own disk
)

// Parked is the error of a call that was not answered because its host is to be
// left alone until a known moment. It is back-pressure: never a failed attempt.
type Parked struct {
	Host  Host
	Until time.Time
	Why   string // one of the Why constants

	// Answer is what the host said last, or what came in place of an answer, in words;
	// empty: that has nothing to do with it.
	Answer string
}

// Error names the host, the reason and the end of the wait.
func (p *Parked) Error() string {
	return fmt.Sprintf("%s is parked until %s: %s", p.Host, p.Until.UTC().Format(time.RFC3339), p.Why)
}
