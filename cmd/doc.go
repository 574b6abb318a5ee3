// Package cmd is the command line: one command a file, the small admin client
// that they share, and service.go, where the parts of the server are put
// together, started and stopped.
package cmd
