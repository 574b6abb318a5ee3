// Package cmd is the command line: one command a file, and the small admin client that
// they share. What is shown to people is in term, and the wiring of a server in service.
package cmd
