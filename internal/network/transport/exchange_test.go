package transport

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/sandbox/sandboxtest"
)

func TestWhatHostsDoAndHowItIsClassed(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	for name, c := range map[string]struct {
		do    http.HandlerFunc
		want  outcome.Reason
		blame bool // counts to the breaker
	}{
		"html with 200":          {hosttest.Says(200, "text/html", "<html>hello</html>"), outcome.ReasonBadAnswer, true},
		"html that claims json":  {hosttest.Says(200, json, " <!doctype html>"), outcome.ReasonBadAnswer, true},
		"text":                   {hosttest.Says(200, "text/plain", "hello"), outcome.ReasonBadAnswer, false},
		"no body":                {hosttest.Says(200, json, ""), outcome.ReasonBadAnswer, false},
		"truncated json":         {hosttest.Says(200, json, `{"records":[{"uri":"at:`), outcome.ReasonBadAnswer, false},
		"trailing data":          {hosttest.Says(200, json, `{"records":[]}{}`), outcome.ReasonBadAnswer, false},
		"array":                  {hosttest.Says(200, json, `[]`), outcome.ReasonBadAnswer, false},
		"no content":             {hosttest.Says(204, json, ""), outcome.ReasonBadAnswer, false},
		"not modified":           {hosttest.Says(304, json, ""), outcome.ReasonBadAnswer, false},
		"redirect without aim":   {hosttest.Says(302, json, ""), outcome.ReasonBadAnswer, false},
		"400":                    {hosttest.Says(400, json, `{"error":"InvalidRequest","message":"no"}`), outcome.ReasonHTTP4xx, false},
		"400 could not find":     {hosttest.Says(400, json, `{"error":"InvalidRequest","message":"Could not find repo: did:plc:x"}`), outcome.ReasonNotFound, false},
		"400 not found":          {hosttest.Says(400, json, `{"error":"NotFound","message":"nope"}`), outcome.ReasonNotFound, false},
		"400 repo not found":     {hosttest.Says(400, json, `{"error":"RepoNotFound"}`), outcome.ReasonNotFound, false},
		"400 deactivated":        {hosttest.Says(400, json, `{"error":"RepoDeactivated"}`), outcome.ReasonDeactivated, false},
		"400 taken down":         {hosttest.Says(400, json, `{"error":"RepoTakendown"}`), outcome.ReasonTakenDown, false},
		"403 suspended":          {hosttest.Says(403, json, `{"error":"RepoSuspended"}`), outcome.ReasonSuspended, false},
		"403 deleted":            {hosttest.Says(403, json, `{"error":"RepoDeleted"}`), outcome.ReasonDeleted, false},
		"400 without body":       {hosttest.Says(400, "text/plain", ""), outcome.ReasonHTTP4xx, false},
		"400 with deep body":     {hosttest.Says(400, json, strings.Repeat("[", 10_000)), outcome.ReasonHTTP4xx, false},
		"401":                    {hosttest.Says(401, json, `{"error":"AuthMissing"}`), outcome.ReasonHTTP4xx, false},
		"403 web page":           {hosttest.Says(403, "text/html", "<html>no robots</html>"), outcome.ReasonBadAnswer, true},
		"404 method":             {hosttest.Says(404, json, `{"error":"NotFound"}`), outcome.ReasonHTTP4xx, false},
		"408":                    {hosttest.Says(408, json, `{}`), outcome.ReasonTimeout, false},
		"500":                    {hosttest.Says(500, json, `{"error":"InternalServerError"}`), outcome.ReasonHTTP5xx, false},
		"500 web page":           {hosttest.Says(500, "text/html", "<h1>oops</h1>"), outcome.ReasonHTTP5xx, true},
		"501":                    {hosttest.Says(501, json, `{"error":"MethodNotImplemented"}`), outcome.ReasonHTTP5xx, false},
		"502":                    {hosttest.Says(502, "text/plain", "bad gateway"), outcome.ReasonHTTP5xx, true},
		"503 without a time":     {hosttest.Says(503, json, `{"error":"x"}`), outcome.ReasonHTTP5xx, true},
		"504":                    {hosttest.Says(504, "text/html", "<h1>"), outcome.ReasonHTTP5xx, true},
		"522":                    {hosttest.Says(522, "text/html", "<h1>"), outcome.ReasonHTTP5xx, true},
		"530":                    {hosttest.Says(530, "text/plain", "error 1033"), outcome.ReasonHTTP5xx, true},
		"cut body":               {hosttest.CutBody, outcome.ReasonCutBody, true},
		"hangs up":               {hosttest.HangUp, outcome.ReasonConnect, true},
		"silent":                 {hosttest.Silent, outcome.ReasonTimeout, true},
		"drips its header":       {hosttest.DripHeader, outcome.ReasonTimeout, true},
		"body stands still":      {hosttest.Stall, outcome.ReasonTimeout, true},
		"body drips":             {hosttest.Drip, outcome.ReasonTimeout, true},
		"gzip bomb":              {bomb(), outcome.ReasonTooLarge, false},
		"broken gzip":            {hosttest.Says(200, json, "this is not gzip at all", "Content-Encoding", "gzip"), outcome.ReasonBadAnswer, true},
		"says it is huge":        {hosttest.Huge, outcome.ReasonTooLarge, false},
		"not http":               {hosttest.NotHTTP, outcome.ReasonBadAnswer, true},
		"header without an end":  {hosttest.EndlessHeader, outcome.ReasonBadAnswer, true},
		"message with newlines":  {hosttest.Says(400, json, `{"error":"A\nB","message":"`+strings.Repeat("x", 10_000)+`"}`), outcome.ReasonHTTP4xx, false},
		"429 with html":          {hosttest.Says(429, "text/html", "<h1>slow down</h1>"), "parked: rate_limited", false},
		"429 with a time":        {hosttest.Says(429, json, `{}`, "Retry-After", "17"), "parked: rate_limited", false},
		"503 with a time":        {hosttest.Says(503, "text/html", "<h1>", "Retry-After", "17"), "parked: rate_limited", false},
		"200 with an empty pool": {hosttest.Says(200, json, `{"records":[]}`, "RateLimit-Remaining", "0", "RateLimit-Reset", "60"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Serve(t, c.do)
			client := newClient(t, Config{Timing: Timing{Header: time.Second, BodyIdle: time.Second, Connect: time.Second, TLS: time.Second}}, limits{})
			start := time.Now()
			_, err := page(t, client, host)
			if got := reasonOf(err); got != string(c.want) {
				t.Fatalf("got %q (%v), want %q", got, err, c.want)
			}
			if st := client.cfg.Gates.HostState(host); (st.Failures > 0) != c.blame || (st.LastErr != nil) != c.blame {
				t.Errorf("breaker: %+v, want blame %v", st, c.blame)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000) {
				t.Errorf("error is no line: %q", err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if n := client.cfg.Gates.InFlight(host); n != 0 {
				t.Errorf("%d slots still taken", n)
			}
		})
	}
}

// bomb is 40 MiB of spaces in a few KiB, made before anybody waits for it.
func bomb() http.HandlerFunc {
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for range 40 {
		_, _ = z.Write(spaces)
	}
	_ = z.Close()
	return hosttest.Says(200, "application/json", small.String(), "Content-Encoding", "gzip")
}

func TestNoAnswerAtAll(t *testing.T) {
	t.Parallel()
	nobody, _ := hosttest.Nobody(t)
	plain := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	secure := httptest.NewUnstartedServer(hosttest.Says(200, "application/json", `{"records":[]}`))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	nowhere := sandboxtest.Resolver(t, func(string) []netip.Addr { return nil })
	relay := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"repos":[]}`)) // our own network is there
	c := newClient(t, Config{Timing: Timing{Connect: 2 * time.Second, TLS: 2 * time.Second}, Resolver: nowhere}, limits{Services: []polite.Host{relay}})
	for name, q := range map[string]struct {
		host polite.Host
		want outcome.Reason
	}{
		"connection refused":  {nobody, outcome.ReasonConnect},
		"no such name":        {"http://unknown.test", outcome.ReasonDNS},
		"no tls":              {"https" + plain[len("http"):], outcome.ReasonTLS},
		"unknown certificate": {polite.Host(secure.URL), outcome.ReasonTLS},
	} {
		_, err := page(t, c, q.host)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != q.want || e.Host != q.host || e.Op != listRecords || e.Status != 0 {
			t.Errorf("%s: got %+v (%v), want %s", name, e, err, q.want)
		}
	}
	if !isTLS(tls.AlertError(40)) {
		t.Error("an alert is no tls error")
	}
}

func TestHTTP2HostsAreAskedOverHTTP2(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked over %s", r.Proto)
		}
		if r.URL.Query().Get("cursor") == "stall" {
			hosttest.Stall(w, r)
			return
		}
		hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, Config{Timing: Timing{BodyIdle: time.Second}}, limits{})
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	c.transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	for range 3 {
		if _, err := page(t, c, polite.Host(s.URL)); err != nil {
			t.Fatal(err)
		}
	}
	q := listing(polite.Host(s.URL), alice)
	q.Target += "?cursor=stall"
	_, err := c.Fetch(t.Context(), q)
	wantReason(t, err, outcome.ReasonTimeout)
}

func TestCancelEndsACallAtOnce(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]http.HandlerFunc{"before the header": hosttest.Silent, "in the body": hosttest.Stall} {
		started := make(chan struct{}, 1)
		host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			started <- struct{}{}
			do(w, r)
		})
		c := newClient(t, Config{}, limits{PerHost: 1})
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		ask := func() {
			_, err := pageOf(ctx, c, host, alice)
			results <- err
		}
		go ask()
		<-started
		go ask() // waits for the only slot
		cancel()
		at := time.Now()
		for range 2 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, want cancelled", name, err)
			}
		}
		if took := time.Since(at); took > time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if st := c.cfg.Gates.HostState(host); st.Failures != 0 {
			t.Errorf("%s: the host is blamed: %+v", name, st)
		}
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 1)
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		hosttest.Silent(w, r)
	})
	c := newClient(t, Config{}, limits{})
	result := make(chan error, 1)
	go func() {
		_, err := page(t, c, host)
		result <- err
	}()
	<-started
	c.Close()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want cancelled", err)
	}
	if _, err := page(t, c, host); !errors.Is(err, context.Canceled) {
		t.Fatalf("after Close: got %v, want cancelled", err)
	}
}

func TestRequestsNameTheProgramAndTakeGzip(t *testing.T) {
	t.Parallel()
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "me/1 (+https://me.example)" || r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("header: %v", r.Header)
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"records":[],"cursor":"c"}`)
		_ = z.Close()
	})
	p, err := page(t, newClient(t, Config{UserAgent: "me/1 (+https://me.example)"}, limits{}), host)
	if err != nil || p.Cursor != "c" {
		t.Fatalf("got %+v, %v", p, err)
	}
}
