// Package server is the HTTP side of appview: the admin API, the public reads
// and the probes of an operator.
//
// routes.go shows every path. An endpoint computes a reply and never sees the
// ResponseWriter, so it can neither answer twice nor half-answer; handle.go does
// the writing. Errors become answers in one place, errors.go, in the shape that
// the path's audience expects. Lines of JSON are written while they are made, by
// lines.go, to clients that keep up. The server answers from the store alone, and
// commands jobs through the Jobs interface: no answer waits for the network. How
// hosts behave at the moment it is told through the Hosts interface.
package server
