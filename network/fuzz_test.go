package network

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"appview/network/outcome"
)

// guarded is a client whose guard is on. It asks nobody.
func guarded(f *testing.F) *Client {
	f.Helper()
	c, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.Close)
	return c
}

// checkHost wants a host to be what the guard lets through, and its own spelling.
func checkHost(t *testing.T, c *Client, host Host) {
	t.Helper()
	again, err := c.ParseHost(string(host))
	if err != nil || again != host {
		t.Fatalf("%q is read again as %q, %v", host, again, err)
	}
	u, err := url.Parse(string(host))
	if err != nil || u.Scheme != schemeHTTPS || u.Path != "" || u.User != nil || u.Port() != "" || u.RawQuery != "" {
		t.Fatalf("%q is no origin that we may use: %+v, %v", host, u, err)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !public(addr) {
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
	c := guarded(f)
	f.Fuzz(func(t *testing.T, endpoint string) {
		if host, err := c.ParseHost(endpoint); err == nil {
			checkHost(t, c, host)
		}
	})
}

// FuzzRedirect follows anything that a host may send us to.
func FuzzRedirect(f *testing.F) {
	for _, seed := range []string{"https://other.example.com/x?y=z", "//127.0.0.1/", "/y", "?a", "https://%zz", "\\\\x", "http:x", "https://other.example.com:443\r\nX: y"} {
		f.Add(seed)
	}
	c := guarded(f)
	f.Fuzz(func(t *testing.T, location string) {
		q, err := c.redirect(call{op: "ask", host: "https://pds.example.com", target: "/xrpc/a?b=c"}, location)
		if err != nil {
			return
		}
		checkHost(t, c, q.host)
		req, err := http.NewRequest(http.MethodGet, string(q.host)+q.target, http.NoBody) //nolint:noctx // it is not sent
		if err != nil {
			return // and nothing is sent
		}
		if req.URL.Scheme+"://"+req.URL.Host != string(q.host) {
			t.Fatalf("%q leads to %s, and the request would go to %s", location, q.host, req.URL.Host)
		}
	})
}

// FuzzDocument reads anything as a DID document.
func FuzzDocument(f *testing.F) {
	did := alice.String()
	key := `{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"` + testKey + `"}`
	f.Add([]byte(document(did, pdsService("#atproto_pds", "https://pds.example.com"), key)))
	f.Add([]byte(document(did, pdsService(did+"#atproto_pds", "https://127.0.0.1"), strings.Replace(key, "Multikey", "EcdsaSecp256k1VerificationKey2019", 1))))
	f.Add([]byte(`{"id":"` + did + `","verificationMethod":[{"id":"#atproto","type":"Multikey","publicKeyMultibase":"z"}],"alsoKnownAs":["at://",""]}`))
	f.Add([]byte(`{"id":"` + did + `","service":{"id":"#atproto_pds","type":["AtprotoPersonalDataServer"],"serviceEndpoint":[{},"https://pds.example.com"]},"verificationMethod":{"id":"#atproto","controller":[]}}`))
	c := guarded(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := readDocument(body, alice)
		if err != nil {
			return
		}
		id, err := c.identity(alice, doc)
		if err == nil {
			checkHost(t, c, id.PDS)
		} else if e, ok := errors.AsType[*Error](err); !ok || e.Reason.Retryable() {
			t.Fatalf("%q: %v", body, err)
		}
		_, _ = id.Key() // must only not panic
	})
}

// FuzzStatus reads anything as the status of a repo.
func FuzzStatus(f *testing.F) {
	for _, seed := range []string{
		`{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":true,"rev":"3kgk4qs6aa22a"}`, `{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":false,"status":"x\ny"}`,
		`{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":true,"rev":"zzzzzzzzzzzzz"}`, `{"active":null}`, `{"did":7}`,
	} {
		f.Add([]byte(seed))
	}
	c := guarded(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var out statusAnswer
		if !shallow(body) || json.Unmarshal(body, &out) != nil {
			return
		}
		st, err := c.readStatus(t.Context(), "https://pds.example.com", alice, out)
		if err != nil {
			return
		}
		if st.Active != (st.Status == "" && st.Reason() == "") && st.Active {
			t.Fatalf("%q: %+v, reason %s", body, st, st.Reason())
		}
		if st.Rev != "" && st.Rev.Time().After(time.Now().Add(25*time.Hour)) || len(st.Status) > 200 || strings.ContainsAny(st.Status, "\r\n") {
			t.Fatalf("%q: %+v", body, st)
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
		q := call{op: methodListRecords, host: "https://pds.example.com"}
		e, alive := refusal(q, &received{status: status, header: http.Header{"Content-Type": {kind}}, body: body})
		if text := e.Error(); len(text) > 1000 || strings.ContainsAny(text, "\r\n") {
			t.Fatalf("no line: %q", text)
		}
		if e.Reason == "" || e.Reason.Class() == outcome.ClassDone || e.Reason.Class() == outcome.ClassUnavailable && !alive {
			t.Fatalf("HTTP %d %q %q is %s, alive %v", status, kind, body, e.Reason, alive)
		}
	})
}

// FuzzPacing reads anything as what a host says of its limits.
func FuzzPacing(f *testing.F) {
	f.Add("0", "60", "3000;w=300", "3000", "17", "")
	f.Add("5", "1800000000", `"a";q=1;w=2, 7;w=3`, "", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	f.Add("-1", "99999999999999999999", ";;w=", "x", "1e9", "x")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, remaining, reset, policy, limit, after, date string) {
		h := http.Header{}
		for name, value := range map[string]string{
			"Ratelimit-Remaining": remaining, "Ratelimit-Reset": reset, "Ratelimit-Policy": policy, "Ratelimit-Limit": limit, "Retry-After": after, "Date": date,
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		if q := readQuota(h, now); q.known && (q.remaining < 0 || q.reset <= 0 || q.reset > maxPause) {
			t.Fatalf("%v: %+v", h, q)
		}
		if pause := readPause(h, now); pause < 0 || pause > farAway {
			t.Fatalf("%v: %s", h, pause)
		}
	})
}

// FuzzInflate inflates anything: what comes out is what the standard library makes
// of it, as far as it is let.
func FuzzInflate(f *testing.F) {
	f.Add([]byte(squeezed(f, goodPage, 1)))
	f.Add([]byte(squeezed(f, repeat(" ", 1<<20), 3)))
	f.Add([]byte(squeezed(f, "a", 1) + squeezed(f, "b", 1)))
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
