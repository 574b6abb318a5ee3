// Package hosttest has hosts for tests, well and ill.
package hosttest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"appview/internal/network/polite"
)

// Main runs a package's tests, and fails when they are over and something of ours still runs.
func Main(m *testing.M) {
	log.SetOutput(io.Discard) // where net/http complains of hosts
	code := m.Run()
	if code == 0 {
		if left := goroutinesLeft(5 * time.Second); left != "" {
			_, _ = os.Stderr.WriteString("goroutines left:\n" + left)
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // the only way to fail from here
}

// goroutinesLeft waits for goroutines that are on their way out.
func goroutinesLeft(patience time.Duration) string {
	end := time.Now().Add(patience)
	for {
		buf := make([]byte, 1<<20)
		var left []string
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "appview/internal/network") && !strings.Contains(stack, "goroutinesLeft") ||
				strings.Contains(stack, "net/http.(*persistConn)") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
		runtime.Gosched()
	}
}

// Serve starts a host that ends with the test.
func Serve(tb testing.TB, h http.HandlerFunc) polite.Host {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ReadTimeout, s.Config.WriteTimeout = time.Minute, time.Minute
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return polite.Host(s.URL)
}

// Listen opens a port.
func Listen(tb testing.TB, address string) (net.Listener, error) {
	tb.Helper()
	var cfg net.ListenConfig
	return cfg.Listen(tb.Context(), "tcp", address)
}

// Says answers every request the same.
func Says(code int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// Nobody is a host where nothing listens.
func Nobody(tb testing.TB) (polite.Host, string) {
	tb.Helper()
	ln, err := Listen(tb, "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it only had to have a port
	return polite.Host("http://" + ln.Addr().String()), ln.Addr().String()
}

// CutBody ends a body before its length.
func CutBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"records":[`)
}

// HangUp closes the connection.
func HangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Silent answers nothing.
func Silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Stall stands still in the body.
func Stall(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"records":[`)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// Every calls f in short steps until it fails or the client has left.
func Every(r *http.Request, d time.Duration, f func() error) {
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

// Drip sends a byte of the body now and then.
func Drip(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	Every(r, 20*time.Millisecond, func() error {
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

// DripHeader sends a byte of the header now and then.
func DripHeader(w http.ResponseWriter, _ *http.Request) {
	raw(w, 20*time.Millisecond, "HTTP/1.1 200 OK\r\nX: ", "a")
}

// EndlessHeader sends header without end.
func EndlessHeader(w http.ResponseWriter, _ *http.Request) {
	raw(w, time.Microsecond, "HTTP/1.1 200 OK\r\n", "X: "+strings.Repeat("a", 4000)+"\r\n")
}

// NotHTTP speaks another protocol.
func NotHTTP(w http.ResponseWriter, _ *http.Request) {
	raw(w, 0, "SSH-2.0-OpenSSH_9.9\r\n", "")
}

// Huge announces a body that is too large.
func Huge(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
	_, _ = io.WriteString(w, `{"records":[`)
}

// Squeezed is a lot of text in a few bytes.
func Squeezed(tb testing.TB, text string, times int) string {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	for range times {
		if _, err := io.WriteString(z, text); err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}
