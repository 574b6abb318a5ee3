// Package api is the wire: one type for each JSON object of the HTTP API, and one
// constant for each name of a closed list, for the server, for the commands that ask it,
// and for tests. It imports nothing of this module, so that every package may refer to it.
//
// A member that is a pointer is always there, and null says that it is not known, or that
// there is none. Names are part of the API, and many are stored: they are never renamed.
// The reasons of repos are the closed list of internal/network/outcome.
package api

import "time"

// Known is a member that may be null.
func Known[T any](v T, is bool) *T {
	if !is {
		return nil
	}
	return &v
}

// Stamp is how times are written: UTC, whole seconds.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
