package control

import (
	"strings"
	"testing"
)

func TestHostsAreDeniedAsTheyAreKnown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"pds.example.com": "pds.example.com", "HTTPS://x": "", "https://PDS.Example.com": "pds.example.com", "http://pds.example.com:80": "pds.example.com",
		"pds.example.com:3000": "pds.example.com:3000", "127.0.0.1:2583": "127.0.0.1:2583", "[::1]": "::1", "[::1]:443": "::1", "[::1]:2583": "[::1]:2583",
		"localhost": "localhost", "a_b.example": "a_b.example", "pds.example.com:": "", "[::1": "", "::x": "", "::1": "::1",
		"[2001:DB8:0::1]:08443": "[2001:db8::1]:8443", "::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "", "pds.example.com:0": "",
		"pds.example.com:65536": "", "pds.example.com:02583": "pds.example.com:2583", "-pds.example.com": "", "pds-.example.com": "",
		strings.Repeat("a", 63) + ".example": strings.Repeat("a", 63) + ".example", strings.Repeat("a", 64) + ".example": "",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 127) + "a": "",
	} {
		got, err := parseEntry(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}
