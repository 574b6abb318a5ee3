// Package outcome names how the reading of a repo may end: a class, and a reason of one
// closed list. It is the vocabulary of everything that asks hosts or judges their answers.
package outcome

import (
	"slices"
)

// Class is what a repo's reading came to.
type Class string

// The three classes. Every discovered repo ends in exactly one.
const (
	ClassDone        Class = "done"        // its records are in the index, as far as it has any
	ClassUnavailable Class = "unavailable" // there is nothing to be had, and that is an answer
	ClassFailed      Class = "failed"      // there may be something, and we could not get it
)

// Reason says why a repo ended in its class. The list is closed: it is stored,
// reported and counted by name, so a name is never changed once released.
type Reason string

// Reasons of ClassDone.
const (
	ReasonExact             Reason = "exact"               // the repo as it was at one revision
	ReasonChangedDuringRead Reason = "changed_during_read" // complete, and some of it from a later revision
	ReasonEmpty             Reason = "empty"               // read to the end, and no record was there
)

// Reasons of ClassUnavailable: all of them final.
const (
	ReasonNotFound    Reason = "not_found"   // the host or the directory does not know the account
	ReasonDeleted     Reason = "deleted"     // the account was deleted
	ReasonTakenDown   Reason = "taken_down"  // the host took the account down
	ReasonSuspended   Reason = "suspended"   // the host suspended the account
	ReasonDeactivated Reason = "deactivated" // the owner switched the account off
	ReasonNoPDS       Reason = "no_pds"      // the DID document names no PDS
	ReasonBadDID      Reason = "bad_did"     // no document can exist for this DID
	ReasonTombstoned  Reason = "tombstoned"  // the DID was given up for ever
	ReasonDenied      Reason = "denied"      // on our own deny list
)

// Reasons of ClassFailed that are worth another attempt.
const (
	ReasonDNS         Reason = "dns"          // the name did not resolve
	ReasonConnect     Reason = "connect"      // no connection
	ReasonTLS         Reason = "tls"          // no secure connection, or a certificate we do not accept
	ReasonTimeout     Reason = "timeout"      // no answer in time, or too slow a one
	ReasonHTTP5xx     Reason = "http_5xx"     // the host says that it is broken
	ReasonCutBody     Reason = "cut_body"     // the answer ended too early
	ReasonBadAnswer   Reason = "bad_answer"   // the answer makes no sense
	ReasonIncomplete  Reason = "incomplete"   // the repo could not be read to its end
	ReasonDIDLookup   Reason = "did_lookup"   // the DID document could not be had
	ReasonHostDown    Reason = "host_down"    // the host was set aside and never came back
	ReasonRateLimited Reason = "rate_limited" // the host asked us to wait for longer than we do
	ReasonNoRev       Reason = "no_rev"       // the host does not say at which revision the repo is
)

// Reasons of ClassFailed that another attempt would only repeat.
const (
	ReasonHTTP4xx        Reason = "http_4xx"        // the host refuses the request
	ReasonBadEndpoint    Reason = "bad_endpoint"    // the PDS address is none that we may use
	ReasonRefusedAddress Reason = "refused_address" // the PDS is at an address that is not public
	ReasonBadSignature   Reason = "bad_signature"   // the commit is not signed with the account's key
	ReasonBadRev         Reason = "bad_rev"         // the revision is no TID, or lies in the future
	ReasonRevWentBack    Reason = "rev_went_back"   // the host shows an older state than it has shown before
	ReasonTooLarge       Reason = "too_large"       // past what we are willing to read
	ReasonRejected       Reason = "rejected"        // some records were refused; the good ones are stored
)

// Reasons lists every reason, in the order above.
func Reasons() []Reason {
	return slices.Concat(doneReasons(), unavailableReasons(), retryableReasons(), finalReasons())
}

func doneReasons() []Reason {
	return []Reason{ReasonExact, ReasonChangedDuringRead, ReasonEmpty}
}

func unavailableReasons() []Reason {
	return []Reason{
		ReasonNotFound, ReasonDeleted, ReasonTakenDown, ReasonSuspended, ReasonDeactivated,
		ReasonNoPDS, ReasonBadDID, ReasonTombstoned, ReasonDenied,
	}
}

func retryableReasons() []Reason {
	return []Reason{
		ReasonDNS, ReasonConnect, ReasonTLS, ReasonTimeout, ReasonHTTP5xx, ReasonCutBody, ReasonBadAnswer,
		ReasonIncomplete, ReasonDIDLookup, ReasonHostDown, ReasonRateLimited, ReasonNoRev,
	}
}

func finalReasons() []Reason {
	return []Reason{
		ReasonHTTP4xx, ReasonBadEndpoint, ReasonRefusedAddress, ReasonBadSignature,
		ReasonBadRev, ReasonRevWentBack, ReasonTooLarge, ReasonRejected,
	}
}

// Class is the class that r belongs to; ClassFailed for a reason that is not on
// the list, because that is the class that hides nothing.
func (r Reason) Class() Class {
	switch {
	case slices.Contains(doneReasons(), r):
		return ClassDone
	case slices.Contains(unavailableReasons(), r):
		return ClassUnavailable
	default:
		return ClassFailed
	}
}

// Retryable reports whether another attempt may end differently.
func (r Reason) Retryable() bool { return slices.Contains(retryableReasons(), r) }
