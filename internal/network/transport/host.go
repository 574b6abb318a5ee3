package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/util/ssrf"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// maxHostname is the longest name that DNS can hold.
const maxHostname = 253

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	portHTTP    = "80"
	portHTTPS   = "443"
)

// ParseHost reads a service endpoint as a DID document or a flag gives it: an
// origin, and nothing after it. It fails with outcome.ReasonNoPDS, outcome.ReasonBadEndpoint or
// outcome.ReasonRefusedAddress, and looks nothing up: a name that resolves to a private
// address is refused when it is dialled. allowPrivate allows private and loopback addresses,
// any port, and plain http.
func ParseHost(endpoint string, allowPrivate bool) (polite.Host, error) {
	if endpoint == "" {
		return "", &Error{Op: opParseHost, Reason: outcome.ReasonNoPDS, Err: errors.New("no endpoint")}
	}
	bad := func(reason outcome.Reason, why string) (polite.Host, error) {
		return "", &Error{Op: opParseHost, Reason: reason, Err: fmt.Errorf("%.200q: %s", endpoint, why)}
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return bad(outcome.ReasonBadEndpoint, "not a url")
	case u.Scheme != schemeHTTP && u.Scheme != schemeHTTPS:
		return bad(outcome.ReasonBadEndpoint, "neither https nor http")
	case u.Opaque != "" || u.Host == "":
		return bad(outcome.ReasonBadEndpoint, "no host")
	case u.User != nil:
		return bad(outcome.ReasonBadEndpoint, "holds a user name")
	case u.Path != "" && u.Path != "/":
		return bad(outcome.ReasonBadEndpoint, "has a path")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(endpoint, "#"):
		return bad(outcome.ReasonBadEndpoint, "has a query or fragment")
	}
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return bad(outcome.ReasonBadEndpoint, "address with a zone")
		}
		if !allowPrivate && !isPublic(addr) {
			return bad(outcome.ReasonRefusedAddress, "not a public address")
		}
		name = addr.Unmap().String()
	} else if !allowPrivate && (name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		return bad(outcome.ReasonRefusedAddress, "not a public address")
	} else if !isHostname(name) {
		return bad(outcome.ReasonBadEndpoint, "not a host name")
	}
	standard := portHTTPS
	if u.Scheme == schemeHTTP {
		standard = portHTTP
	}
	port := u.Port()
	if port == "" {
		port = standard
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return bad(outcome.ReasonBadEndpoint, "port out of range")
	}
	port = strconv.FormatUint(n, 10)
	if !allowPrivate && (u.Scheme != schemeHTTPS || port != standard) {
		return bad(outcome.ReasonBadEndpoint, "must be https on its own port")
	}
	if port != standard {
		return polite.Host(u.Scheme + "://" + net.JoinHostPort(name, port)), nil
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	return polite.Host(u.Scheme + "://" + name), nil
}

// isHostname reports whether name can be looked up: labels of letters, digits,
// hyphens and underscores, and a last one that makes it no number.
func isHostname(name string) bool {
	if name == "" || len(name) > maxHostname {
		return false
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// isPublic reports whether the guard connects to addr.
func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap()
	for _, reserved := range reservedPrefixes() {
		if reserved.Contains(addr) {
			return false
		}
	}
	return ssrf.IsPublicIPAddress(net.IP(addr.AsSlice()))
}

// reservedPrefixes are no public addresses, though indigo's ssrf package takes them for
// some. Source: the special-purpose address registries of RFC 6890 (April 2013) with the
// documentation prefix of RFC 9637 (August 2024), and Microsoft's "What is IP address
// 168.63.129.16?", at which every virtual machine of Azure reaches its host. The metadata
// addresses of other clouds lie in ranges of these registries.
func reservedPrefixes() [5]netip.Prefix {
	return [5]netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16),             // 6to4, which carries an IPv4 address
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01}), 23),             // Teredo, which does too, ORCHID and other protocol assignments
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8}), 32), // documentation
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x3f, 0xff}), 20),             // documentation
		netip.PrefixFrom(netip.AddrFrom4([4]byte{168, 63, 129, 16}), 32),         // the host of a virtual machine at Azure
	}
}
