package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"appview/internal/api"
	"appview/server/answer"
)

// raw sends a request as it stands, to a server at an address.
func (r *rig) raw(network, address, request string) result {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), network, address)
	r.check(err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, request)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	r.check(err)
	return result{res.StatusCode, res.Header, string(body)}
}

// askAs asks for the metrics under a name.
func (r *rig) askAs(host string) result {
	r.t.Helper()
	return r.raw("tcp", r.http.Listener.Addr().String(), "GET /metrics HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
}

func TestMetricsAnswerOnlyUnderNamesThatNoStrangerOwns(t *testing.T) {
	t.Parallel()
	r := everything(t)
	for _, host := range []string{
		"127.0.0.1", "127.0.0.1:3000", "192.0.2.7:1", "8.8.8.8", "0.0.0.0:65535", "127.0.0.1:", "127.0.0.1.",
		"[::1]", "[::1]:3000", "[2001:DB8::7]:9090", "[fe80::1%eth0]", "[fe80::1%25eth0]:3000", "[::ffff:192.0.2.7]",
		"localhost", "localhost:3000", "LocalHost", "localhost.", "LOCALHOST.:3000", "a.localhost", "a.b.localhost.",
		"appview", "appview:3000", "APPVIEW", "my_appview-1", "2130706433", "0x7f000001", "ai", "local",
		"nas.local", "nas.local.:80", "a.b.LOCAL", "appview.internal", "appview.corp.internal:1", "appview.monitoring.svc", "appview.svc",
		"appview.monitoring.svc.cluster.local", "appview.monitoring.svc.cluster.local.:9090", "127.0.0.1.local",
	} {
		if a := r.askAs(host); a.status != http.StatusOK || !strings.Contains(a.body, "appview_x 1") {
			t.Errorf("%q: %d %s", host, a.status, a.body)
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:3000", "EVIL.EXAMPLE.", "www.evil.example", "appview.example.com",
		"1.2.3.4.evil.com", "127.0.0.1.nip.io", "127.0.0.1.nip.io:3000", "127-0-0-1.evil.com", "127.1", "127.0.1", "0x7f.0.0.1", "0177.0.0.1",
		"256.0.0.1", "1.2.3.4.5", "1.2.3", "127.0.0.1..", "127.0.0.01",
		"localhost.evil.com", "localhost.evil.com.", "evil-localhost.com", "notlocalhost.com", "localhost..", ".localhost", "a..localhost", "localhost:80:80", "localhost:evil.com", "localhost:x",
		"local.evil.com", "nas.local.evil.com", "evillocal.com", ".local", "internal.evil.com", "evil.internal.com", "svc.evil.com", "svc.cluster.local.evil.com",
		"ai.", "appview.", "internal.", "appview.ns", "appview.tail1234.ts.net", "my.lan", "a.home.arpa",
		"[::1", "::1", "::1:3000", "[::1]evil.com", "[::1].evil.com", "[::1]:x", "[127.0.0.1]", "[evil.com]", "[]", "[v1.a]", "fe80::1%eth0",
		"", ".", ":", ":3000", "localhost%2eevil.com", "localhost,evil.com", "evil.com,localhost", "evil.com_.local-", "a;.local", "user@localhost",
		"localhost:123456", strings.Repeat("a.", 130) + "local",
	} {
		a := r.askAs(host)
		if a.status == http.StatusBadRequest && !strings.HasPrefix(a.body, "{") {
			continue // net/http does not take it for a host
		}
		a.want(t, http.StatusMisdirectedRequest, "--allow-host")
		if strings.Contains(a.body, "appview_x") || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v %s", host, a.header, a.body)
		}
	}
}

// TestReboundPageReadsWhatIsPublic asks as a browser does whose reader is on a page of a
// stranger's, the name of which leads here.
func TestReboundPageReadsWhatIsPublic(t *testing.T) {
	t.Parallel()
	r := everything(t)
	browser := []string{"Host", "evil.example:3000", "Origin", "", "Referer", "http://evil.example:3000/", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}
	asks := func(method, path, bearer string) result {
		return r.do(method, path, "", append(browser, "Authorization", bearer)...)
	}
	for _, rt := range r.server.routes() {
		a := asks(rt.Method, concrete(rt), "")
		switch {
		case rt.Path == answer.MetricsPath:
			a.want(t, http.StatusMisdirectedRequest, `under the name "evil.example:3000"`)
		case strings.HasPrefix(rt.Path, answer.AdminSpace):
			a.want(t, http.StatusUnauthorized, "no key was sent")
		case a.status == http.StatusMisdirectedRequest || a.status == http.StatusUnauthorized:
			t.Errorf("%s: %d %s", rt.Path, a.status, a.body)
		}
	}
	for _, path := range []string{"/", "/health", "/ready", "/openapi.json", "/admin/stats"} { // under a name of the operator's, with a key
		if a := asks(http.MethodGet, path, "Bearer "+testKey); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	asks(http.MethodHead, answer.MetricsPath, "").want(t, http.StatusMisdirectedRequest, "")
	r.logs.wait(t, `msg="metrics refused"`)
	r.logs.wait(t, "host=evil.example:3000")
}

func TestMetricsAnswerAnyNameWithAKey(t *testing.T) {
	t.Parallel()
	r := everything(t)
	stats, all := r.bearerOf("hv_may-read-stats", nil, api.StatsRead), r.bearerOf("hv_may-do-all", nil, api.AllPermissions)
	other := r.bearerOf("hv_may-read-jobs", nil, api.BackfillRead)
	asks := func(host, bearer string) result {
		return r.do(http.MethodGet, answer.MetricsPath, "", "Host", host, "Authorization", bearer)
	}
	for _, bearer := range []string{stats, all, "Bearer " + testKey} {
		if a := asks("metrics.example.com", bearer); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", bearer, a.status, a.body)
		}
	}
	asks("metrics.example.com", other).want(t, http.StatusForbidden, "lacks the permission stats:read")
	asks("metrics.example.com", "Bearer hv_unknown").want(t, http.StatusUnauthorized, "not known here")
	for _, bearer := range []string{"", "Basic YTpi", "Bearer x"} { // no key of ours: a proxy may have sent it
		asks("metrics.example.com", bearer).want(t, http.StatusMisdirectedRequest, "--allow-host")
	}
	for _, bearer := range []string{"", other, "Bearer hv_unknown", "Basic YTpi"} { // no key is needed
		if a := asks("localhost:1", bearer); a.status != http.StatusOK {
			t.Errorf("%q: %d %s", bearer, a.status, a.body)
		}
	}
}

func TestMetricsAnswerUnderConfiguredNames(t *testing.T) {
	t.Parallel()
	public, err := ParsePublicURL("https://Index.Example.com.:8443/appview")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, withMetrics, func(c *Config) {
		c.PublicURL, c.AllowHosts = public, []string{"Metrics.Example.com", "appview.tail1234.ts.net."}
	})
	for host, status := range map[string]int{
		"index.example.com": 200, "INDEX.example.com.:1": 200, "metrics.example.com:9090": 200, "metrics.example.com.": 200, "appview.tail1234.ts.net": 200,
		"example.com": 421, "www.index.example.com": 421, "metrics.example.com.evil.com": 421, "metrics.example.co": 421,
	} {
		if a := r.askAs(host); a.status != status {
			t.Errorf("%s: %d, want %d", host, a.status, status)
		}
	}
}

func TestWhereTheNameStands(t *testing.T) {
	t.Parallel()
	r := everything(t)
	for request, status := range map[string]int{
		"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost":                                      200,
		"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost":                                   421,
		"GET http://localhost@evil.example/metrics HTTP/1.1\r\nHost: localhost":                         421,
		"GET http://evil.example:80/metrics HTTP/1.1\r\nHost: evil.example:80":                          421,
		"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost":                    421,
		"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nForwarded: host=localhost":                      421,
		"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example":                    200,
		"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example":                                400,
		"GET /metrics HTTP/1.1\r\nX: y":                                                                 400,
		"GET /metrics HTTP/1.0\r\nX: y":                                                                 421,
		"GET /metrics HTTP/1.0\r\nHost: localhost":                                                      200,
		"GET //evil.example/metrics HTTP/1.1\r\nHost: localhost":                                        404,
		"GET /metrics/ HTTP/1.1\r\nHost: evil.example":                                                  404,
		"GET /x/../metrics HTTP/1.1\r\nHost: evil.example":                                              404,
		"GET /%6detrics HTTP/1.1\r\nHost: evil.example":                                                 421,
		"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0":                                405,
		"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer " + testKey:               200,
		"GET http://evil.example/metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "x": 401,
	} {
		if a := r.raw("tcp", r.http.Listener.Addr().String(), request+"\r\nConnection: close\r\n\r\n"); a.status != status {
			t.Errorf("%q: %d, want %d", request, a.status, status)
		}
	}
}

func TestMetricsAnswerAnyNameOverASocket(t *testing.T) {
	t.Parallel()
	r := everything(t)
	l := r.listenUnix()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx, l) }()
	for _, host := range []string{"evil.example", "", "localhost"} {
		if a := r.raw("unix", l.Addr().String(), fmt.Sprintf("GET /metrics HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)); a.status != http.StatusOK {
			t.Errorf("%q: %d %s", host, a.status, a.body)
		}
	}
	stop()
	r.check(<-ended)
}

func TestConfiguredNamesMustBeNames(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "*", "*.example.com", ".example.com", "a..b", "https://example.com", "example.com:3000", "example.com/x", "a,b", "b\u00fccher.example", "a b", "[::1]"} {
		if _, err := ParseHostName(text); err == nil || !strings.Contains(err.Error(), "is no host name") {
			t.Errorf("%q: %v", text, err)
		}
	}
	r := newRig(t)
	if _, err := New(Config{Store: r.store, Jobs: r.jobs, AllowHosts: []string{"a.example", "*"}}); err == nil || !strings.Contains(err.Error(), `"*" is no host name`) {
		t.Errorf("got %v", err)
	}
}

// TestNamesBehindAPath: the path that everything stands behind is no way around.
func TestNamesBehindAPath(t *testing.T) {
	t.Parallel()
	r := newRig(t, withMetrics, func(c *Config) { c.BasePath, c.CORSOrigins = "/appview/", []string{adminOrigin} })
	for path, host := range map[string]string{"/appview/metrics": "evil.example", "/metrics": "evil.example", "/appview/%6detrics": "evil.example:80"} {
		for name, status := range map[string]int{host: http.StatusMisdirectedRequest, "appview:3000": http.StatusOK} {
			a := r.raw("tcp", r.http.Listener.Addr().String(), fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nConnection: close\r\n\r\n", path, name, adminOrigin))
			if a.status != status || a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s as %s: %d %v, want %d", path, name, a.status, a.header, status)
			}
		}
	}
	a := r.raw("tcp", r.http.Listener.Addr().String(), fmt.Sprintf(
		"OPTIONS /appview/admin/backfill HTTP/1.1\r\nHost: evil.example\r\nOrigin: %s\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n", adminOrigin))
	if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != adminOrigin {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
}
