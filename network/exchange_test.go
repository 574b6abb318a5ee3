package network

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appview/network/outcome"
	"appview/sandbox/sandboxtest"
)

func TestWhatHostsDoAndHowItIsClassed(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	for name, c := range map[string]struct {
		do    http.HandlerFunc
		want  outcome.Reason
		blame bool // counts to the breaker
	}{
		"html with 200":          {says(200, "text/html", "<html>hello</html>"), outcome.ReasonBadAnswer, true},
		"html that claims json":  {says(200, json, " <!doctype html>"), outcome.ReasonBadAnswer, true},
		"text":                   {says(200, "text/plain", "hello"), outcome.ReasonBadAnswer, false},
		"no body":                {says(200, json, ""), outcome.ReasonBadAnswer, false},
		"truncated json":         {says(200, json, `{"records":[{"uri":"at:`), outcome.ReasonBadAnswer, false},
		"trailing data":          {says(200, json, `{"records":[]}{}`), outcome.ReasonBadAnswer, false},
		"wrong shape":            {says(200, json, `{"records":{}}`), outcome.ReasonBadAnswer, false},
		"array":                  {says(200, json, `[]`), outcome.ReasonBadAnswer, false},
		"no records":             {says(200, json, `{"cursor":"a"}`), outcome.ReasonBadAnswer, false},
		"cursor is a number":     {says(200, json, `{"records":[],"cursor":7}`), outcome.ReasonBadAnswer, false},
		"endless cursor":         {says(200, json, `{"records":[],"cursor":"`+repeat("a", maxCursor+1)+`"}`), outcome.ReasonBadAnswer, false},
		"very deep":              {says(200, json, `{"records":`+repeat("[", 1<<20)), outcome.ReasonBadAnswer, false},
		"too many records":       {says(200, json, `{"records":[`+repeat("{},", maxListed)+`{}]}`), outcome.ReasonBadAnswer, false},
		"no content":             {says(204, json, ""), outcome.ReasonBadAnswer, false},
		"not modified":           {says(304, json, ""), outcome.ReasonBadAnswer, false},
		"redirect without aim":   {says(302, json, ""), outcome.ReasonBadAnswer, false},
		"400":                    {says(400, json, `{"error":"InvalidRequest","message":"no"}`), outcome.ReasonHTTP4xx, false},
		"400 could not find":     {says(400, json, `{"error":"InvalidRequest","message":"Could not find repo: did:plc:x"}`), outcome.ReasonNotFound, false},
		"400 not found":          {says(400, json, `{"error":"NotFound","message":"nope"}`), outcome.ReasonNotFound, false},
		"400 repo not found":     {says(400, json, `{"error":"RepoNotFound"}`), outcome.ReasonNotFound, false},
		"400 deactivated":        {says(400, json, `{"error":"RepoDeactivated"}`), outcome.ReasonDeactivated, false},
		"400 taken down":         {says(400, json, `{"error":"RepoTakendown"}`), outcome.ReasonTakenDown, false},
		"403 suspended":          {says(403, json, `{"error":"RepoSuspended"}`), outcome.ReasonSuspended, false},
		"403 deleted":            {says(403, json, `{"error":"RepoDeleted"}`), outcome.ReasonDeleted, false},
		"400 without body":       {says(400, "text/plain", ""), outcome.ReasonHTTP4xx, false},
		"400 with deep body":     {says(400, json, repeat("[", 10_000)), outcome.ReasonHTTP4xx, false},
		"401":                    {says(401, json, `{"error":"AuthMissing"}`), outcome.ReasonHTTP4xx, false},
		"403 web page":           {says(403, "text/html", "<html>no robots</html>"), outcome.ReasonBadAnswer, true},
		"404 method":             {says(404, json, `{"error":"NotFound"}`), outcome.ReasonHTTP4xx, false},
		"408":                    {says(408, json, `{}`), outcome.ReasonTimeout, false},
		"500":                    {says(500, json, `{"error":"InternalServerError"}`), outcome.ReasonHTTP5xx, false},
		"500 web page":           {says(500, "text/html", "<h1>oops</h1>"), outcome.ReasonHTTP5xx, true},
		"501":                    {says(501, json, `{"error":"MethodNotImplemented"}`), outcome.ReasonHTTP5xx, false},
		"502":                    {says(502, "text/plain", "bad gateway"), outcome.ReasonHTTP5xx, true},
		"503 without a time":     {says(503, json, `{"error":"x"}`), outcome.ReasonHTTP5xx, true},
		"504":                    {says(504, "text/html", "<h1>"), outcome.ReasonHTTP5xx, true},
		"522":                    {says(522, "text/html", "<h1>"), outcome.ReasonHTTP5xx, true},
		"530":                    {says(530, "text/plain", "error 1033"), outcome.ReasonHTTP5xx, true},
		"cut body":               {cutBody, outcome.ReasonCutBody, true},
		"hangs up":               {hangUp, outcome.ReasonConnect, true},
		"silent":                 {silent, outcome.ReasonTimeout, true},
		"drips its header":       {dripHeader, outcome.ReasonTimeout, true},
		"body stands still":      {stall, outcome.ReasonTimeout, true},
		"body drips":             {drip, outcome.ReasonTimeout, true},
		"gzip bomb":              {bomb(), outcome.ReasonTooLarge, false},
		"broken gzip":            {says(200, json, "this is not gzip at all", "Content-Encoding", "gzip"), outcome.ReasonBadAnswer, true},
		"says it is huge":        {huge, outcome.ReasonTooLarge, false},
		"not http":               {notHTTP, outcome.ReasonBadAnswer, true},
		"header without an end":  {endlessHeader, outcome.ReasonBadAnswer, true},
		"message with newlines":  {says(400, json, `{"error":"A\nB","message":"`+repeat("x", 10_000)+`"}`), outcome.ReasonHTTP4xx, false},
		"429 with html":          {says(429, "text/html", "<h1>slow down</h1>"), "parked: rate_limited", false},
		"429 with a time":        {says(429, json, `{}`, "Retry-After", "17"), "parked: rate_limited", false},
		"503 with a time":        {says(503, "text/html", "<h1>", "Retry-After", "17"), "parked: rate_limited", false},
		"200 with an empty pool": {says(200, json, `{"records":[]}`, "RateLimit-Remaining", "0", "RateLimit-Reset", "60"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serve(t, c.do)
			client := newClient(t, Config{Timing: Timing{Header: time.Second, BodyIdle: time.Second, Connect: time.Second, TLS: time.Second}})
			start := time.Now()
			_, err := page(t, client, host)
			if got := reasonOf(err); got != string(c.want) {
				t.Fatalf("got %q (%v), want %q", got, err, c.want)
			}
			if st := client.HostState(host); (st.Failures > 0) != c.blame || (st.LastErr != nil) != c.blame {
				t.Errorf("breaker: %+v, want blame %v", st, c.blame)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000) {
				t.Errorf("error is no line: %q", err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			g := client.gates.look(host)
			if n := len(g.slots); n != 0 {
				t.Errorf("%d slots still taken", n)
			}
		})
	}
}

func cutBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"records":[`)
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func stall(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"records":[`)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// every calls f in short steps until it fails or the client has left.
func every(r *http.Request, d time.Duration, f func() error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for f() == nil {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func drip(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	every(r, 20*time.Millisecond, func() error {
		_, _ = io.WriteString(w, " ")
		return rc.Flush()
	})
}

// raw takes the connection over.
func raw(w http.ResponseWriter, step time.Duration, begin, again string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // the client decides how this ends
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.WriteString(conn, begin)
	if again == "" {
		return
	}
	tick := time.NewTicker(step)
	defer tick.Stop()
	for ; err == nil; _, err = io.WriteString(conn, again) {
		<-tick.C
	}
}

func dripHeader(w http.ResponseWriter, _ *http.Request) {
	raw(w, 20*time.Millisecond, "HTTP/1.1 200 OK\r\nX: ", "a")
}

func endlessHeader(w http.ResponseWriter, _ *http.Request) {
	raw(w, time.Microsecond, "HTTP/1.1 200 OK\r\n", "X: "+repeat("a", 4000)+"\r\n")
}

func notHTTP(w http.ResponseWriter, _ *http.Request) {
	raw(w, 0, "SSH-2.0-OpenSSH_9.9\r\n", "")
}

func huge(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
	_, _ = io.WriteString(w, `{"records":[`)
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
	return says(200, "application/json", small.String(), "Content-Encoding", "gzip")
}

func TestNoAnswerAtAll(t *testing.T) {
	t.Parallel()
	ln, err := listen(t, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := Host("http://" + ln.Addr().String())
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	plain := serve(t, says(200, "application/json", `{"records":[]}`))
	secure := httptest.NewUnstartedServer(says(200, "application/json", `{"records":[]}`))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	nowhere := sandboxtest.Resolver(t, func(string) []netip.Addr { return nil })
	relay := serve(t, says(200, "application/json", `{"repos":[]}`)) // our own network is there
	c := newClient(t, Config{Relay: string(relay), Timing: Timing{Connect: 2 * time.Second, TLS: 2 * time.Second}, Resolver: nowhere})
	for name, q := range map[string]struct {
		host Host
		want outcome.Reason
	}{
		"connection refused":  {nobody, outcome.ReasonConnect},
		"no such name":        {"http://unknown.test", outcome.ReasonDNS},
		"no tls":              {"https" + plain[len("http"):], outcome.ReasonTLS},
		"unknown certificate": {Host(secure.URL), outcome.ReasonTLS},
	} {
		_, err := page(t, c, q.host)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != q.want || e.Host != q.host || e.Op != methodListRecords || e.Status != 0 {
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
			stall(w, r)
			return
		}
		says(200, "application/json", `{"records":[]}`)(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, Config{Timing: Timing{BodyIdle: time.Second}})
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	c.transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	for range 3 {
		if _, err := page(t, c, Host(s.URL)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.ListRecords(t.Context(), Host(s.URL), alice, status, "stall")
	wantReason(t, err, outcome.ReasonTimeout)
}

func TestCancelEndsACallAtOnce(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]http.HandlerFunc{"before the header": silent, "in the body": stall} {
		started := make(chan struct{}, 1)
		host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			started <- struct{}{}
			do(w, r)
		})
		c := newClient(t, Config{PerHost: 1})
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		ask := func() {
			_, err := c.ListRecords(ctx, host, alice, status, "")
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
		if st := c.HostState(host); st.Failures != 0 {
			t.Errorf("%s: the host is blamed: %+v", name, st)
		}
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 1)
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		silent(w, r)
	})
	c := newClient(t, Config{})
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
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "me/1 (+https://me.example)" || r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("header: %v", r.Header)
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"records":[],"cursor":"c"}`)
		_ = z.Close()
	})
	p, err := page(t, newClient(t, Config{UserAgent: "me/1 (+https://me.example)"}), host)
	if err != nil || p.Cursor != "c" {
		t.Fatalf("got %+v, %v", p, err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Relay: "http://127.0.0.1:1"}, {PLC: "https://plc.directory/path"}, {HostRPS: -1}, {PerHost: -1}, {Relay: "nonsense", AllowPrivate: true},
	} {
		if c, err := New(cfg); err == nil {
			c.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
}
