// Package network speaks to the hosts of the Atmosphere: a relay that lists
// repos, the directories that say where a repo lives, and the PDS hosts that
// hold them. It knows no job and no store.
//
// Everything that comes from a host is untrusted. Every request goes through
// one path (exchange.go): the guard that lets no connection leave for a private
// address, the gate of its host that keeps us polite, the breaker that notices a
// dead host, the watch on our own network, a body that is capped and budgeted,
// and the closed list of reasons in package outcome that every failure ends in. A
// repo's CAR comes the same way, and package repo verifies the whole of it before a
// caller sees any.
//
// The package never retries. A call ends in a value, in an *Error that names
// its reason, in a *Parked that names the moment before which asking again is
// pointless and which is nobody's failed attempt, or in the context's error.
package network
