//go:build unix

package service

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const errRefused = syscall.ECONNREFUSED

// restrictSocket keeps all others from a socket before it is there. Where that does not
// work, its directory does.
func restrictSocket(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) }) // some systems cannot
}
