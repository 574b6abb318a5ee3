package service

import (
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
)

func TestWindowsSaysOfAPortInNumbersOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EADDRINUSE, 10048} {
		err := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)}
		if !IsErrno(err, syscall.EADDRINUSE, WSAAddrInUse) || IsErrno(err, syscall.EADDRNOTAVAIL, wsaAddrNotAvail) || IsErrno(err, syscall.EACCES, wsaAccess) {
			t.Errorf("%v is not taken for what it is", err)
		}
	}
}

func TestAddressOfAServerAsAURL(t *testing.T) {
	t.Parallel()
	for address, addr := range map[string]net.TCPAddr{
		"http://127.0.0.1:3000":           {IP: net.IPv4(127, 0, 0, 1), Port: 3000},
		"http://127.0.0.1:3001":           {IP: net.IPv4zero, Port: 3001},
		"http://127.0.0.1:3002":           {IP: net.IPv6unspecified, Port: 3002},
		"http://[::1]:3000":               {IP: net.IPv6loopback, Port: 3000},
		"http://192.0.2.7:3000":           {IP: net.IPv4(192, 0, 2, 7), Port: 3000},
		"http://[fe80::1%25eth0]:3000":    {IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 3000},
		"http://[fe80::1%25eth0.7]:65535": {IP: net.ParseIP("fe80::1"), Zone: "eth0.7", Port: 65535},
	} {
		if got := localURL(&addr, ""); got != address {
			t.Errorf("%s: %s, want %s", addr.String(), got, address)
		}
		if back, err := url.Parse(address); err != nil || back.Host == "" {
			t.Errorf("%s is no URL: %v", address, err)
		}
	}
}
