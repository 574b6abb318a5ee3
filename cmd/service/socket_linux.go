package service

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socketByHandle is a short path to an open directory, which leads to it wherever it is.
func socketByHandle(handle *os.File) (string, bool) {
	path := fmt.Sprintf("/proc/self/fd/%d", handle.Fd())
	_, err := os.Stat(path) // there may be no /proc
	return path, err == nil
}

// peerOf is the user who listens at the other end.
func peerOf(conn net.Conn) (uid int, known bool) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	errControl := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if errControl != nil || err != nil {
		return 0, false
	}
	return int(cred.Uid), true
}
