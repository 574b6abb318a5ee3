//go:build unix

package cmd

import "syscall"

// maxOpenFiles is how many files and connections the system lets a process have open.
// Go has raised it at the start as far as it may be raised.
func maxOpenFiles() (n uint64, known bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // it is signed on some systems
}
