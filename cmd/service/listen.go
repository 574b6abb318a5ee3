package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// UnixScheme begins the address of a socket.
const UnixScheme = "unix:"

// checkAddress refuses what cannot be the address of a listener. It asks nobody for a name.
func checkAddress(ctx context.Context, flag, address string) error {
	if path, isSocket := strings.CutPrefix(address, UnixScheme); isSocket {
		if path == "" {
			return Usagef("%s is %q, it must name the file of a socket, such as %s/run/appview/http.sock", flag, UnixScheme, UnixScheme)
		}
		return nil
	}
	if address == "" { // to net.Listen any port at all addresses of the machine
		return Usagef("%s is empty, it must be an address and a port, such as %s", flag, DefaultListen)
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(ctx, "tcp", port)
	}
	if bad, is := errors.AsType[*net.AddrError](err); is {
		return Usagef("%s is %q, it must be an address and a port, such as %s: %s", flag, address, DefaultListen, bad.Err)
	}
	if err != nil {
		return Usagef("%s is %q, it must be an address and a port, such as %s: there is no port %q", flag, address, DefaultListen, port)
	}
	return nil
}

// listenOn opens the port that a flag names.
func listenOn(ctx context.Context, flag, address string) (net.Listener, error) {
	if path, isSocket := strings.CutPrefix(address, UnixScheme); isSocket {
		return listenUnix(ctx, flag, path)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case IsErrno(err, syscall.EADDRINUSE, WSAAddrInUse):
		return nil, fmt.Errorf("listen on %s: the port is in use: stop what uses it, or choose another with %s: %w", address, flag, err)
	case IsErrno(err, syscall.EADDRNOTAVAIL, wsaAddrNotAvail):
		return nil, fmt.Errorf("listen on %s: this machine has no such address: choose another with %s: %w", address, flag, err)
	case IsErrno(err, syscall.EACCES, wsaAccess):
		return nil, fmt.Errorf("listen on %s: this user may not use the port: choose one from 1024 on with %s: %w", address, flag, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

// What Windows calls the errors of a port, by numbers of its own.
const (
	wsaAccess       = syscall.Errno(10013)
	WSAAddrInUse    = syscall.Errno(10048)
	wsaAddrNotAvail = syscall.Errno(10049)
	wsaRefused      = syscall.Errno(10061)
)

// IsErrno reports whether the system has said this, or on Windows that.
func IsErrno(err error, unix, windows syscall.Errno) bool {
	return errors.Is(err, unix) || errors.Is(err, windows)
}

// listenUnix opens a socket of the operator's choice. Who may connect to it is decided by
// its directory: over it as over a port, what is secret needs a key.
func listenUnix(ctx context.Context, flag, path string) (net.Listener, error) {
	fail := func(err error) error { return fmt.Errorf("listen on %s (%s): %w", path, flag, withoutAddress(err)) }
	// What a process has left that was killed is in the way; what somebody listens on is
	// not to be removed.
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows" {
			return nil, fail(errors.New("there is a file that is no socket: name another"))
		}
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return nil, fail(errors.Join(errors.New("a server listens there: stop it, or name another"), conn.Close()))
		}
		if !IsErrno(err, errRefused, wsaRefused) {
			return nil, fail(err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fail(err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fail(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fail(err), l.Close())
	}
	return l, nil
}

// localURL is how a program on this machine reaches what stands behind a path of a
// listener. The address of a socket has no path, and needs none.
func localURL(addr net.Addr, basePath string) string {
	if addr.Network() == "unix" {
		return UnixScheme + addr.String()
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String() + basePath
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	// What stands before a zone, as in fe80::1%eth0, begins an escape in a URL.
	return "http://" + strings.Replace(net.JoinHostPort(host, port), "%", "%25", 1) + basePath
}
