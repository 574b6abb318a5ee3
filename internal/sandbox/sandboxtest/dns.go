package sandboxtest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

const (
	dnsHeader     = 12
	dnsQueryFlags = 0x0100 // recursion desired
	typeA         = 1
	typeAAAA      = 28
	classIN       = 1
)

// ServeDNS answers questions for addresses on a socket until the test ends. What
// answer gives is split into A and AAAA records as it is: an IPv4 address mapped
// to IPv6 is an AAAA record. No address at all is NXDOMAIN.
func ServeDNS(tb testing.TB, conn net.PacketConn, answer func(name string) []netip.Addr) {
	tb.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answerDNS(buf[:n], answer); reply != nil {
				_, _ = conn.WriteTo(reply, from) // who asked asks again
			}
		}
	}()
	tb.Cleanup(func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			tb.Errorf("close the name server: %v", err)
		}
		<-ended
	})
}

// Resolver asks a name server of the test's own, on loopback.
func Resolver(tb testing.TB, answer func(name string) []netip.Addr) *net.Resolver {
	tb.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(tb.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("open the name server: %v", err)
	}
	ServeDNS(tb, conn, answer)
	address := conn.LocalAddr().String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", address)
	}}
}

// answerDNS answers one query of one question; nil if it is none.
func answerDNS(query []byte, answer func(string) []netip.Addr) []byte {
	if len(query) < dnsHeader || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	name, rest := dnsName(query[dnsHeader:])
	if len(rest) < 4 {
		return nil
	}
	kind := binary.BigEndian.Uint16(rest)
	question := query[dnsHeader : len(query)-len(rest)+4]
	addrs := answer(name)
	code := uint16(0)
	if addrs == nil {
		code = 3 // no such name
	}
	var records []byte
	count := uint16(0)
	for _, a := range addrs {
		if (kind == typeA) != a.Is4() || kind != typeA && kind != typeAAAA {
			continue
		}
		count++
		records = append(records, 0xc0, dnsHeader) // the name in the question
		records = binary.BigEndian.AppendUint16(records, kind)
		records = binary.BigEndian.AppendUint16(records, classIN)
		records = binary.BigEndian.AppendUint32(records, 0) // not to be kept
		records = binary.BigEndian.AppendUint16(records, uint16(len(a.AsSlice())))
		records = append(records, a.AsSlice()...)
	}
	reply := append([]byte(nil), query[:2]...)
	reply = binary.BigEndian.AppendUint16(reply, 0x8080|dnsQueryFlags|code)
	for _, n := range []uint16{1, count, 0, 0} {
		reply = binary.BigEndian.AppendUint16(reply, n)
	}
	return append(append(reply, question...), records...)
}

// dnsName reads a name, and gives what is behind it.
func dnsName(b []byte) (name string, rest []byte) {
	var labels []string
	for len(b) > 0 && b[0] != 0 {
		n := int(b[0])
		if n > 63 || len(b) < 1+n {
			return "", nil
		}
		labels = append(labels, strings.ToLower(string(b[1:1+n])))
		b = b[1+n:]
	}
	if len(b) == 0 {
		return "", nil
	}
	return strings.Join(labels, "."), b[1:]
}
