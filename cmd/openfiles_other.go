//go:build !unix

package cmd

// maxOpenFiles is not bounded here.
func maxOpenFiles() (n uint64, known bool) { return 0, false }
