// Package term shows things to people: tables and fields that fit the terminal, a job that
// goes on, figures, and texts that others have written and that must not command a
// terminal. It knows the objects of the HTTP API, and no server.
package term
