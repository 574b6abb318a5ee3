package cmd

import (
	"net"

	"golang.org/x/sys/unix"
)

// isCut reports whether the other side has ended a connection, of which nothing is read.
func isCut(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	state := uint8(unix.BPF_TCP_CLOSE)
	if err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	}); err != nil {
		return true
	}
	return state != unix.BPF_TCP_ESTABLISHED
}
