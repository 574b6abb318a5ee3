package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
)

// streamed serves one route that streams as f does.
func (r *rig) streamed(f func(http.ResponseWriter, *http.Request) error) *httptest.Server {
	r.t.Helper()
	h := r.server.dispatch([]answer.Route{answer.Get("/admin/stream", api.StatsRead, answer.Unhurried(r.server.out.Stream(f)))})
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { h.ServeHTTP(r.server.out.NewWriter(w, q), q) }))
	r.t.Cleanup(hs.Close)
	return hs
}

// begin asks for the stream and returns its body when the header is there.
func (r *rig) begin(hs *httptest.Server, bearer string) (status int, body io.Reader) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, hs.URL+"/admin/stream", nil)
	r.check(err)
	req.Header.Set("Authorization", bearer)
	res, err := hs.Client().Do(req)
	r.check(err)
	r.t.Cleanup(func() { _ = res.Body.Close() })
	return res.StatusCode, res.Body
}

// keyNamed is a stored key.
func (r *rig) keyNamed(secret string) admin.APIKey {
	r.t.Helper()
	k, err := r.store.Admin.APIKey(r.t.Context(), secret)
	r.check(err)
	return k
}

// broken wants a stream to have been broken off.
func broken(t *testing.T, body io.Reader) {
	t.Helper()
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("after %d bytes the stream ended as if it were whole", n)
	}
}

// waits is a stream that says one word and waits for its end, as one of events does.
func waits(w http.ResponseWriter, r *http.Request) error {
	_, err := io.WriteString(w, "hello\n")
	if err = errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
		return err
	}
	<-r.Context().Done()
	return nil
}

func TestRevokedKeyEndsItsStreamsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good, gone := r.bearerOf("hv_good", nil, api.StatsRead), r.bearerOf("hv_gone", nil, api.StatsRead)
	hs := r.streamed(waits)
	_, stays := r.begin(hs, good)
	_, ends := r.begin(hs, gone)
	_, configured := r.begin(hs, "Bearer "+testKey)
	if a := r.revoke(r.keyNamed("hv_gone").ID); a.status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", a.status, a.body)
	}
	broken(t, ends)
	for _, body := range []io.Reader{stays, configured} {
		if line, err := bufio.NewReader(body).ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("the stream of another key: %q, %v", line, err)
		}
	}
	if log := r.logs.String(); !strings.Contains(log, "stream ended with its key") {
		t.Errorf("log: %s", log)
	}
	hs.CloseClientConnections()
	hs.Close()
	if n := len(r.server.sessions.open); n != 0 {
		t.Errorf("%d keys still have streams", n)
	}
}

func TestStreamsEndWhenTheirKeyExpires(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const left = 300 * time.Millisecond
	now := time.Now().Truncate(time.Second)
	r.server.cfg.Now = func() time.Time { return now.Add(-left) }
	bearer := r.bearerOf("hv_expires", func(k *admin.APIKey) { k.ExpiresAt = now }, api.StatsRead)
	began := time.Now()
	_, body := r.begin(r.streamed(waits), bearer)
	broken(t, body)
	if took := time.Since(began); took < left {
		t.Errorf("the stream ended after %s, its key was good for %s", took, left)
	}
}

// TestRevokedKeyEndsAnExportThatWaitsForItsClient has a client that takes nothing,
// and a server that would wait an hour for it.
func TestRevokedKeyEndsAnExportThatWaitsForItsClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Pace = answer.Pace{Write: time.Hour, Window: time.Hour, Rate: 1}
	r.bulk()
	for i, header := range []string{"", "Accept-Encoding: gzip\r\n"} {
		secret := fmt.Sprint("hv_exporter-", i)
		bearer := r.bearerOf(secret, nil, api.RecordsRead)
		other, res := r.open(header) // of the configured key: goes on
		defer func() { _ = res.Body.Close() }()
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.http.Listener.Addr().String())
		r.check(err)
		defer func() { _ = conn.Close() }()
		_, err = fmt.Fprintf(conn, "GET /admin/records/export HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n", bearer, header)
		r.check(err)
		export, err := http.ReadResponse(bufio.NewReader(conn), nil)
		r.check(err)
		defer func() { _ = export.Body.Close() }()
		if a := r.revoke(r.keyNamed(secret).ID); a.status != http.StatusNoContent {
			t.Fatalf("revoke: %d %s", a.status, a.body)
		}
		r.exportsLeft(1) // although nothing was read
		broken(t, export.Body)
		if n := len(r.server.out.Bounds.Exports); n != 1 {
			t.Errorf("%d exports run, want that of another key", n)
		}
		r.check(other.Close())
		r.idle()
	}
}

// exportsLeft waits until no more exports run than given.
func (r *rig) exportsLeft(n int) {
	r.t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for len(r.server.out.Bounds.Exports) > n {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("%d exports still run", len(r.server.out.Bounds.Exports))
		}
	}
}

// TestStreamThatHearsNothingIsCut has a handler that looks at neither its context
// nor its errors.
func TestStreamThatHearsNothingIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearer := r.bearerOf("hv_gone", nil, api.StatsRead)
	revoked, ended := make(chan struct{}), make(chan int, 1)
	hs := r.streamed(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "before\n")
		_ = http.NewResponseController(w).Flush()
		<-revoked
		n, _ := io.WriteString(w, "after\n")
		ended <- n
		return nil
	})
	_, body := r.begin(hs, bearer)
	r.revoke(r.keyNamed("hv_gone").ID)
	close(revoked)
	if n := <-ended; n != 0 {
		t.Errorf("%d bytes were written for a revoked key", n)
	}
	data, err := io.ReadAll(body)
	if err == nil || string(data) != "before\n" {
		t.Errorf("the stream was %q, %v", data, err)
	}
}

// TestKeyRevokedBetweenItsCheckAndItsStream revokes the key when it has been found
// good and the stream has not begun.
func TestKeyRevokedBetweenItsCheckAndItsStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearer := r.bearerOf("hv_gone", nil, api.StatsRead)
	other := r.bearerOf("hv_other", nil, api.StatsRead)
	streams := 0
	stream := r.server.out.Stream(func(w http.ResponseWriter, _ *http.Request) error {
		streams++
		_, err := io.WriteString(w, "hello")
		return err
	})
	between := ""
	h := r.server.dispatch([]answer.Route{answer.Get("/admin/stream", api.StatsRead, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.revoke(r.keyNamed(between).ID) //nolint:contextcheck // it is somebody else's request
		stream.ServeHTTP(w, q)
	}))})
	ask := func(bearer string) *httptest.ResponseRecorder {
		q := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/admin/stream", nil)
		q.Header.Set("Authorization", bearer)
		rec := httptest.NewRecorder()
		h.ServeHTTP(r.server.out.NewWriter(rec, q), q)
		return rec
	}
	between = "hv_gone"
	if rec := ask(bearer); rec.Code != 401 || !strings.Contains(rec.Body.String(), "was revoked") || streams != 0 {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	r.key("hv_third", nil, api.StatsRead)
	between = "hv_third" // another key's end leaves this one good
	if rec := ask(other); rec.Code != 200 || rec.Body.String() != "hello" || streams != 1 {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

// TestStreamWithoutAWordIsRefusedWithItsKey has a stream that had written nothing
// when its key was revoked: there is room for a whole answer.
func TestStreamWithoutAWordIsRefusedWithItsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bearer := r.bearerOf("hv_gone", nil, api.StatsRead)
	began := make(chan struct{})
	hs := r.streamed(func(_ http.ResponseWriter, q *http.Request) error {
		close(began)
		<-q.Context().Done()
		return q.Context().Err()
	})
	go func() {
		<-began
		r.server.sessions.revoke(r.keyNamed("hv_gone").ID)
	}()
	status, body := r.begin(hs, bearer)
	data, err := io.ReadAll(body)
	if status != http.StatusUnauthorized || !strings.Contains(string(data), "was revoked") || err != nil {
		t.Errorf("got %d %s, %v", status, data, err)
	}
}
