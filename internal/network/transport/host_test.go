package transport

import (
	"net/netip"
	"testing"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ endpoint, strict, open string }{
		{"https://pds.example.com", "https://pds.example.com", "https://pds.example.com"},
		{"https://PDS.Example.com/", "https://pds.example.com", "https://pds.example.com"},
		{"https://pds.example.com.:443", "https://pds.example.com", "https://pds.example.com"},
		{"https://pds.example.com:0443", "https://pds.example.com", "https://pds.example.com"},
		{"https://93.184.216.34", "https://93.184.216.34", "https://93.184.216.34"},
		{"https://[2606:2800:220:1::1]", "https://[2606:2800:220:1::1]", "https://[2606:2800:220:1::1]"},
		{"", "no_pds", "no_pds"},
		{"pds.example.com", "bad_endpoint", "bad_endpoint"},
		{"//pds.example.com", "bad_endpoint", "bad_endpoint"},
		{"https:pds.example.com", "bad_endpoint", "bad_endpoint"},
		{"https://", "bad_endpoint", "bad_endpoint"},
		{"ftp://pds.example.com", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com/path", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com//", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com?q", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com?", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com#f", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com#", "bad_endpoint", "bad_endpoint"},
		{"https://user@pds.example.com", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com:99999", "bad_endpoint", "bad_endpoint"},
		{"https://pds.example.com:0", "bad_endpoint", "bad_endpoint"},
		{"https://pds_.-x.com", "bad_endpoint", "bad_endpoint"},
		{"https://pds..example.com", "bad_endpoint", "bad_endpoint"},
		{"https://pds example.com", "bad_endpoint", "bad_endpoint"},
		{"https://pds.exämple.com", "bad_endpoint", "bad_endpoint"},
		{"https://127.1", "bad_endpoint", "bad_endpoint"},
		{"https://2130706433", "bad_endpoint", "bad_endpoint"},
		{"https://0x7f000001", "bad_endpoint", "bad_endpoint"},
		{"https://[fe80::1%25eth0]", "bad_endpoint", "bad_endpoint"},
		{"http://pds.example.com", "bad_endpoint", "http://pds.example.com"},
		{"https://pds.example.com:8443", "bad_endpoint", "https://pds.example.com:8443"},
		{"http://127.0.0.1:2583", "refused_address", "http://127.0.0.1:2583"},
		{"http://localhost:2583", "refused_address", "http://localhost:2583"},
		{"https://a.localhost", "refused_address", "https://a.localhost"},
		{"https://10.1.2.3", "refused_address", "https://10.1.2.3"},
		{"https://169.254.169.254", "refused_address", "https://169.254.169.254"},
		{"https://[::1]", "refused_address", "https://[::1]"},
		{"http://[::1]:80", "refused_address", "http://[::1]"},
		{"https://[::ffff:127.0.0.1]", "refused_address", "https://127.0.0.1"},
	} {
		for mode, want := range map[string]string{"strict": c.strict, "open": c.open} {
			host, err := ParseHost(c.endpoint, mode == "open")
			got := string(host)
			if err != nil {
				got = reasonOf(err)
			}
			if got != want {
				t.Errorf("%s %q: got %s, want %s", mode, c.endpoint, got, want)
			}
		}
	}
}

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
		"192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
		"64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "100::1",
		"3fff::1", "3fff:fff:ffff::1", "168.63.129.16", "::ffff:168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254",
	} {
		if isPublic(netip.MustParseAddr(addr)) {
			t.Errorf("%s counts as public", addr)
		}
	}
	for _, addr := range []string{"1.1.1.1", "93.184.216.34", "172.32.0.1", "::ffff:1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1", "168.63.129.15", "168.63.129.17", "3ffe::1"} {
		if !isPublic(netip.MustParseAddr(addr)) {
			t.Errorf("%s does not count as public", addr)
		}
	}
}
