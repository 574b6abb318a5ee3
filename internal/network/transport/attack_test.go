package transport

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

// rawHost answers on the connection itself. Its handler gets the connection with
// each request that came, and reports whether it wants another one.
func rawHost(tb testing.TB, handle func(conn net.Conn, req *http.Request, n int) bool) polite.Host {
	tb.Helper()
	ln, err := hosttest.Listen(tb, "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var (
		open sync.WaitGroup
		n    atomic.Int64
	)
	open.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close() //nolint:errcheck // the client decides how this ends
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				in := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(in)
					if err != nil || !handle(conn, req, int(n.Load())) {
						return
					}
					n.Add(1)
				}
			})
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		open.Wait()
	})
	return polite.Host("http://" + ln.Addr().String())
}

// sends answers every request with the same bytes and closes the connection.
func sends(text string) func(net.Conn, *http.Request, int) bool {
	return func(conn net.Conn, _ *http.Request, _ int) bool {
		_, _ = io.WriteString(conn, text)
		return false
	}
}

// floods sends the beginning once and then the rest until the client goes.
func floods(begin, again string) func(net.Conn, *http.Request, int) bool {
	return func(conn net.Conn, _ *http.Request, _ int) bool {
		_, err := io.WriteString(conn, begin)
		for err == nil {
			_, err = io.WriteString(conn, again)
		}
		return false
	}
}

// ok is a good answer with some more header.
func ok(header, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
}

// TestAttacksOnTheWire has hosts that do not speak HTTP as it is meant. Each has
// to end soon, with a reason, and leave nothing behind; a good host is asked
// beside it all the while.
func TestAttacksOnTheWire(t *testing.T) {
	t.Parallel()
	chunked := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct {
		do   func(net.Conn, *http.Request, int) bool
		want string // reasons, any of which will do
	}{
		"early hints without end":         {floods("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), "connect bad_answer timeout"},
		"continue without end":            {floods("", "HTTP/1.1 100 Continue\r\n\r\n"), "connect bad_answer timeout"},
		"another protocol":                {sends("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello"), "connect bad_answer"},
		"status of nothing":               {sends("HTTP/1.1 000 \r\n\r\n"), "bad_answer"},
		"status of another kind":          {sends("HTTP/1.1 999 Hm\r\nContent-Length: 0\r\n\r\n"), "http_5xx"},
		"http 0.9":                        {sends(goodPage), "bad_answer"},
		"chunks with endless extensions":  {floods(chunked+"1;", strings.Repeat("x", 4096)), "cut_body bad_answer"},
		"chunks of one byte with ballast": {floods(chunked, "1;"+strings.Repeat("x", 2000)+"\r\n \r\n"), "cut_body bad_answer"},
		"chunk of an impossible length":   {sends(chunked + "fffffffffffffffffff\r\n"), "cut_body bad_answer"},
		"chunk that says it is huge":      {sends(chunked + "7fffffffffffffff\r\n{"), "cut_body"},
		"endless trailers":                {floods(chunked+"1b\r\n"+goodPage+"\r\n0\r\n", "X-A: "+strings.Repeat("y", 4000)+"\r\n"), "cut_body bad_answer"},
		"trailers":                        {sends(chunked + "1b\r\n" + goodPage + "\r\n0\r\nX-A: b\r\nContent-Length: 9\r\n\r\n"), ""},
		"two lengths":                     {sends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 27\r\n\r\n" + goodPage), "bad_answer connect"},
		"negative length":                 {sends("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + goodPage), "bad_answer connect"},
		"length and chunks":               {sends(strings.Replace(chunked, "\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n", 1) + "1b\r\n" + goodPage + "\r\n0\r\n\r\n"), ""},
		"length too short":                {sends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + goodPage), "bad_answer"},
		"length too long":                 {sends("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + goodPage), "cut_body"},
		"unknown transfer encoding":       {sends("HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n" + goodPage), "bad_answer connect"},
		"header with a null":              {sends("HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 27\r\n\r\n" + goodPage), "bad_answer connect"},
		"header without a name":           {sends("HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 27\r\n\r\n" + goodPage), "bad_answer connect"},
		"many small headers":              {floods("HTTP/1.1 200 OK\r\n", strings.Repeat("a:\r\n", 1000)), "bad_answer"},
		"compressed twice, it says":       {sends(ok("Content-Encoding: gzip, gzip\r\n", goodPage)), ""},
		"compressed in another way":       {sends(ok("Content-Encoding: br\r\n", "\x8b\x0d\x80")), "bad_answer"},
		"compressed nothing":              {sends(ok("Content-Encoding: gzip\r\n", "")), "cut_body bad_answer"},
		"redirect to itself, long":        {sends("HTTP/1.1 302 Found\r\nLocation: /" + strings.Repeat("a", 60_000) + "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), "bad_answer http_4xx"},
		"retry in a trillion seconds":     {sends("HTTP/1.1 429 No\r\nRetry-After: 1000000000000\r\nContent-Length: 0\r\n\r\n"), "parked: rate_limited"},
		"retry before the beginning":      {sends("HTTP/1.1 429 No\r\nRetry-After: Thu, 01 Jan 0001 00:00:00 GMT\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n"), "parked: rate_limited"},
		"quota of nonsense":               {sends(ok("RateLimit-Remaining: 1e9\r\nRateLimit-Reset: NaN\r\nRateLimit-Policy: ;;;w=\r\n", goodPage)), ""},
		"resets at once":                  {func(conn net.Conn, _ *http.Request, _ int) bool { return reset(conn) }, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, Config{Timing: Timing{Header: 2 * time.Second, BodyIdle: 2 * time.Second, Connect: 2 * time.Second, TLS: 2 * time.Second}}, limits{})
			bad, good := rawHost(t, c.do), hosttest.Serve(t, hosttest.Says(200, "application/json", goodPage))
			start := time.Now()
			_, err := page(t, client, bad)
			if got := reasonOf(err); !contains(c.want, got) {
				t.Errorf("got %q (%v), want one of %q", got, err, c.want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if p, err := page(t, client, good); err != nil || p.Cursor != "c" {
				t.Errorf("a good host beside it: %+v, %v", p, err)
			}
			if n := client.cfg.Gates.InFlight(bad); n != 0 {
				t.Errorf("%d slots are taken", n)
			}
		})
	}
}

// contains reports whether one is among the reasons, or there is neither.
func contains(reasons, one string) bool {
	if reasons == "" || one == "" {
		return reasons == one
	}
	return strings.Contains(reasons, one)
}

// reset ends a connection as a crashed machine does.
func reset(conn net.Conn) bool {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return false
}

// TestAnswersThatNobodyAskedFor has a host send one answer more than it was asked
// for. It can only lie about itself so: what it said too early is at most taken
// for its next answer, and never for that of another host.
func TestAnswersThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	forged := ok("", `{"records":[],"cursor":"forged"}`)
	bad := rawHost(t, func(conn net.Conn, _ *http.Request, _ int) bool {
		_, err := io.WriteString(conn, ok("", goodPage)+forged)
		return err == nil
	})
	good := hosttest.Serve(t, hosttest.Says(200, "application/json", goodPage))
	c := newClient(t, Config{}, limits{})
	for range 50 {
		if p, err := page(t, c, bad); err != nil || p.Cursor != "c" && p.Cursor != "forged" {
			if reasonOf(err) != "connect" && reasonOf(err) != "bad_answer" {
				t.Fatalf("got %+v, %v", p, err)
			}
		}
		if p, err := page(t, c, good); err != nil || p.Cursor != "c" {
			t.Fatalf("another host: %+v, %v", p, err)
		}
	}
}

func TestNoCookieIsKept(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("sent back: %v", r.Header)
		}
		seen.Add(1)
		w.Header().Set("Set-Cookie", "id=tracked; Path=/")
		w.Header().Set("WWW-Authenticate", "Basic")
		if r.URL.Path != "/again" {
			w.Header().Set("Location", "/again")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		hosttest.Says(200, "application/json", goodPage)(w, r)
	})
	c := newClient(t, Config{}, limits{})
	for range 3 {
		if _, err := page(t, c, host); err != nil {
			t.Fatal(err)
		}
	}
	if seen.Load() != 6 {
		t.Errorf("%d requests", seen.Load())
	}
}

func TestTwoHostsThatSendToEachOther(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	var other [2]atomic.Value
	var hosts [2]polite.Host
	for i := range hosts {
		hosts[i] = hosttest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			to, _ := other[i].Load().(polite.Host)
			w.Header().Set("Location", string(to)+fmt.Sprintf("/xrpc/%d", requests.Load()))
			w.WriteHeader(http.StatusFound)
		})
	}
	other[0].Store(hosts[1])
	other[1].Store(hosts[0])
	_, err := page(t, newClient(t, Config{}, limits{}), hosts[0])
	wantReason(t, err, outcome.ReasonBadAnswer)
	if n := requests.Load(); n != 1+maxRedirects {
		t.Errorf("%d requests", n)
	}
}

// frameOf is an HTTP/2 frame.
func frameOf(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	return string([]byte{
		byte(n >> 16), byte(n >> 8), byte(n), kind, flags,
		byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream),
	}) + payload
}

// TestAttacksOverHTTP2 has hosts that agree on HTTP/2 and then misuse it.
func TestAttacksOverHTTP2(t *testing.T) {
	t.Parallel()
	const data, headers, rst, settings, push, ping, goAway, continuation = 0, 1, 3, 4, 5, 6, 7, 9
	hello := frameOf(settings, 0, 0, "")
	for name, c := range map[string]struct{ begin, again string }{
		"silent":                     {hello, ""},
		"no stream may be opened":    {frameOf(settings, 0, 0, "\x00\x03\x00\x00\x00\x00"), ""},
		"goes away at once":          {hello + frameOf(goAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00"), ""},
		"refuses every stream":       {hello + frameOf(rst, 0, 1, "\x00\x00\x00\x07"), ""},
		"header without end":         {hello + frameOf(headers, 0, 1, "\x88"), frameOf(continuation, 0, 1, "\x00\x01a"+"\x7f\xff\x03"+strings.Repeat("x", 4000))},
		"pings without end":          {hello, frameOf(ping, 0, 0, "12345678")},
		"settings without end":       {hello, hello},
		"data without end, no head":  {hello, frameOf(data, 0, 1, strings.Repeat("x", 1000))},
		"frame that is too large":    {hello + "\xff\xff\xff\x00\x00\x00\x00\x00\x01", ""},
		"promises what nobody asked": {hello + frameOf(push, 4, 1, "\x00\x00\x00\x02\x88"), ""},
		"speaks http/1 after all":    {"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n" + goodPage, ""},
		"window of nothing":          {frameOf(settings, 0, 0, "\x00\x04\xff\xff\xff\xff"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			host, trust := http2Host(t, func(conn net.Conn) {
				conns.Add(1)
				_, err := io.WriteString(conn, c.begin)
				for err == nil && c.again != "" {
					_, err = io.WriteString(conn, c.again)
				}
				_, _ = io.Copy(io.Discard, conn)
			})
			client := newClient(t, Config{Timing: Timing{Header: 2 * time.Second, BodyIdle: 2 * time.Second, Connect: time.Second, TLS: time.Second}}, limits{})
			client.transport.TLSClientConfig = trust
			start := time.Now()
			_, err := page(t, client, host)
			if got := reasonOf(err); !contains("connect timeout bad_answer cut_body tls", got) || got == "" {
				t.Errorf("got %q (%v)", got, err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if n := conns.Load(); n > maxConns+1 { // and one to see whether our network is there
				t.Errorf("%d connections for one question", n)
			}
		})
	}
}

// A body that waits for the budget comes in all the same, as far as HTTP/2 lets it.
func TestHostsMaySendLittleThatIsNotRead(t *testing.T) {
	t.Parallel()
	const preface, head, setting, window = 24, 9, 6, 4
	windows := make(chan uint32, maxConns)
	host, trust := http2Host(t, func(conn net.Conn) {
		begin := make([]byte, preface+head)
		if _, err := io.ReadFull(conn, begin); err != nil {
			return
		}
		settings := make([]byte, int(begin[preface+1])<<8|int(begin[preface+2]))
		if _, err := io.ReadFull(conn, settings); err != nil {
			return
		}
		for s := range slices.Chunk(settings, setting) {
			if binary.BigEndian.Uint16(s) == window {
				windows <- binary.BigEndian.Uint32(s[2:])
			}
		}
	})
	client := newClient(t, Config{}, limits{})
	client.transport.TLSClientConfig = trust
	_, _ = page(t, client, host)
	select {
	case got := <-windows:
		if got != maxUnread {
			t.Errorf("a host may send %d bytes before they are read", got)
		}
	default:
		t.Error("no window was named: the default is 4 MiB")
	}
}

func TestNoCertificateIsKept(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	client := newClient(t, Config{}, limits{})
	_, err := page(t, client, polite.Host(s.URL))
	wantReason(t, err, outcome.ReasonTLS)
	last := client.cfg.Gates.HostState(polite.Host(s.URL)).LastErr
	var kept *tls.CertificateVerificationError
	if last == nil || errors.As(last, &kept) || !strings.Contains(last.Error(), "certificate") {
		t.Errorf("%#v", last)
	}
}

func TestNoAnswerThatIsNoneIsKept(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"first line": "HTTP/1.1 " + strings.Repeat("x", maxHeaderBytes/2) + "\r\n\r\n",
		"header":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("x", maxHeaderBytes/2) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := rawHost(t, func(conn net.Conn, _ *http.Request, _ int) bool {
				_, _ = io.WriteString(conn, answer)
				return false
			})
			client := newClient(t, Config{}, limits{})
			_, err := page(t, client, host)
			wantReason(t, err, outcome.ReasonBadAnswer)
			if last := client.cfg.Gates.HostState(host).LastErr; last == nil || len(last.Error()) > 1000 {
				t.Errorf("%.1500v", last)
			}
		})
	}
}

func TestInflatersAreUsedAgain(t *testing.T) {
	t.Parallel()
	body := hosttest.Squeezed(t, goodPage, 1)
	var n atomic.Int32
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		text := body
		switch n.Add(1) % 4 { // what one answer leaves must not show in the next
		case 1:
			text = body[:len(body)-6]
		case 2:
			text = "no gzip at all"
		}
		hosttest.Says(200, "application/json", text, "Content-Encoding", "gzip")(w, r)
	})
	c := newClient(t, Config{}, limits{})
	for i := range 40 {
		p, err := page(t, c, host)
		switch want := map[int]string{0: "cut_body", 1: "bad_answer"}[i%4]; {
		case reasonOf(err) != want:
			t.Fatalf("answer %d: %v, want %q", i, err, want)
		case want == "" && p.Cursor != "c":
			t.Fatalf("answer %d: %+v", i, p)
		}
	}
}

// http2Host is a host that agrees on HTTP/2 and then does as it likes with the
// connection. It gives what makes a client trust it.
func http2Host(tb testing.TB, handle func(net.Conn)) (polite.Host, *tls.Config) {
	tb.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, conn *tls.Conn, _ http.Handler) {
			defer conn.Close() //nolint:errcheck // the client decides how this ends
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			handle(conn)
		},
	}
	s.StartTLS()
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	return polite.Host(s.URL), &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
}
