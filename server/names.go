package server

import (
	"net/netip"
	"strings"
)

// validHost reports whether host is an address, or could be a name in the DNS.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return validName(strings.TrimSuffix(host, "."))
}

// maxName is the longest name that the DNS has, as it is written.
const maxName = 253

// validName reports whether name is one or more labels of letters, digits, hyphens and
// underscores. Containers and services have underscores in theirs.
func validName(name string) bool {
	if len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, func(c rune) bool { return !inLabel(c) }) {
			return false
		}
	}
	return true
}

func inLabel(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
