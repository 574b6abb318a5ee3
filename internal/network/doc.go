// Package network asks the hosts of the Atmosphere: a relay that lists repos, the
// directories that say where a repo lives, and the PDS hosts that hold them. It has the
// questions, and what their answers mean. It knows no job and no store.
//
// Everything that comes from a host is untrusted. Every request goes through one path:
// package polite says whether the host may be asked, and when; package transport sends the
// request only to addresses that are public, bounds what comes, and ends every failure in
// a reason of package outcome; package repo verifies the whole of a repo before a caller
// sees any of it.
//
// The package never retries. A call ends in a value, in an *Error that names
// its reason, in a *Parked that names the moment before which asking again is
// pointless and which is nobody's failed attempt, or in the context's error.
package network
