package transport

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// checkHost wants a host to be what the guard lets through, and its own spelling.
func checkHost(t *testing.T, host polite.Host) {
	t.Helper()
	again, err := ParseHost(string(host), false)
	if err != nil || again != host {
		t.Fatalf("%q is read again as %q, %v", host, again, err)
	}
	u, err := url.Parse(string(host))
	if err != nil || u.Scheme != schemeHTTPS || u.Path != "" || u.User != nil || u.Port() != "" || u.RawQuery != "" {
		t.Fatalf("%q is no origin that we may use: %+v, %v", host, u, err)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !isPublic(addr) {
		t.Fatalf("%q is not public", host)
	}
}

// FuzzHost reads anything as an address of a PDS.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{
		"https://pds.example.com", "https://PDS.example.com.:0443/", "https://[::ffff:127.0.0.1]", "https://0x7f.1", "https://user@10.0.0.1", "https://[fe80::1%25eth0]",
		"https://93.184.216.34", "https://[2606:2800:220:1::1]:443", "http://127.1", "https://a..b", "https://xn--.com", "https://127.0.0.1#@host",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		if host, err := ParseHost(endpoint, false); err == nil {
			checkHost(t, host)
		}
	})
}

// FuzzRedirect follows anything that a host may send us to.
func FuzzRedirect(f *testing.F) {
	for _, seed := range []string{"https://other.example.com/x?y=z", "//127.0.0.1/", "/y", "?a", "https://%zz", "\\\\x", "http:x", "https://other.example.com:443\r\nX: y"} {
		f.Add(seed)
	}
	c := newGuardedClient(f, Config{}, limits{})
	f.Fuzz(func(t *testing.T, location string) {
		q, err := c.redirect(Request{Question: polite.Question{Op: "ask", Host: "https://pds.example.com"}, Target: "/xrpc/a?b=c"}, location)
		if err != nil {
			return
		}
		checkHost(t, q.Host)
		req, err := http.NewRequest(http.MethodGet, string(q.Host)+q.Target, http.NoBody) //nolint:noctx // it is not sent
		if err != nil {
			return // and nothing is sent
		}
		if req.URL.Scheme+"://"+req.URL.Host != string(q.Host) {
			t.Fatalf("%q leads to %s, and the request would go to %s", location, q.Host, req.URL.Host)
		}
	})
}

// FuzzRefusal reads anything as a refusal.
func FuzzRefusal(f *testing.F) {
	f.Add(400, "application/json", []byte(`{"error":"InvalidRequest","message":"Could not find repo: did:plc:x"}`))
	f.Add(503, "text/html", []byte("<html>"))
	f.Add(404, "", []byte(`{"error":"NotFound"}`))
	f.Add(999, "text/html;\x00", []byte("\xef\xbb\xbf <"))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		q := listing("https://pds.example.com", alice)
		e, alive := refusal(q, &received{status: status, header: http.Header{"Content-Type": {kind}}, body: body})
		if text := e.Error(); len(text) > 1000 || strings.ContainsAny(text, "\r\n") {
			t.Fatalf("no line: %q", text)
		}
		if e.Reason == "" || e.Reason.Class() == outcome.ClassDone || e.Reason.Class() == outcome.ClassUnavailable && !alive {
			t.Fatalf("HTTP %d %q %q is %s, alive %v", status, kind, body, e.Reason, alive)
		}
	})
}

// FuzzInflate inflates anything: what comes out is what the standard library makes
// of it, as far as it is let.
func FuzzInflate(f *testing.F) {
	f.Add([]byte(hosttest.Squeezed(f, goodPage, 1)))
	f.Add([]byte(hosttest.Squeezed(f, strings.Repeat(" ", 1<<20), 3)))
	f.Add([]byte(hosttest.Squeezed(f, "a", 1) + hosttest.Squeezed(f, "b", 1)))
	f.Add([]byte("no gzip"))
	all := new(inflaters)
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		all.open(resp)
		got, err := io.ReadAll(resp.Body)
		if failed := resp.Body.Close(); failed != nil {
			t.Fatal(failed)
		}
		if errors.Is(err, errBomb) {
			if len(got) < freeInflation {
				t.Fatalf("%d bytes became %d: no bomb", len(body), len(got))
			}
			return
		}
		z, plain := gzip.NewReader(bytes.NewReader(body))
		var want []byte
		if plain == nil {
			want, plain = io.ReadAll(z)
		}
		if (err == nil) != (plain == nil) || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes and %v, the standard library has %d and %v", len(got), err, len(want), plain)
		}
	})
}
