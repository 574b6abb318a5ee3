package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/index"
)

func TestHealthAndReady(t *testing.T) {
	t.Parallel()
	var why error
	r := newRig(t, func(c *Config) { c.Ready = func() error { return why } })
	if a := r.do(http.MethodGet, "/health", "", "Authorization", ""); a.status != 200 || a.body != `{"status":"ok","version":"v-test"}`+"\n" {
		t.Errorf("health: %d %s", a.status, a.body)
	}
	if a := r.do(http.MethodGet, "/ready", "", "Authorization", ""); a.status != 200 || a.body != `{"status":"ready"}`+"\n" {
		t.Errorf("ready: %d %s", a.status, a.body)
	}
	why = errors.New("the backfill workers have stopped")
	r.get("/ready").want(t, 503, "not ready: the backfill workers have stopped")
	if a := r.get("/health"); a.status != 200 {
		t.Errorf("health: %d", a.status)
	}
}

func TestStatsShowWhatTheIndexHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var st api.Stats
	r.get("/admin/stats").decode(t, &st)
	if len(st.Collections) != 0 || st.Repos != 0 || st.Seq != 0 || st.Tracked == nil || st.Version != "v-test" || st.Database.FileBytes == 0 || st.DiskFull {
		t.Errorf("empty: %+v", st)
	}
	r.check(r.store.Collections.Track(t.Context(), note))
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3), status: texts(t, 1)})
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
	r.get("/admin/stats").decode(t, &st)
	if st.Collections[note] != (api.CollectionStats{Records: 5, Repos: 2}) || st.Collections[status] != (api.CollectionStats{Records: 1, Repos: 1}) || st.Repos != 2 || st.Seq != 6 ||
		len(st.Tracked) != 1 || st.Tracked[0] != note {
		t.Errorf("filled: %+v", st)
	}
	r.get("/admin/stats?x=1").want(t, 400, "unknown parameter")
}

// running is a server on a listener of its own.
type running struct {
	addr string
	stop context.CancelFunc
	done chan error
}

func (r *rig) run() running {
	r.t.Helper()
	l, err := new(net.ListenConfig).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	r.check(err)
	ctx, stop := context.WithCancel(r.t.Context())
	run := running{addr: l.Addr().String(), stop: stop, done: make(chan error, 1)}
	go func() { run.done <- r.server.Run(ctx, l) }()
	r.t.Cleanup(stop)
	return run
}

func (run running) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-run.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not return")
	}
}

func TestRunLetsRequestsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	run := r.run()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", run.addr)
	r.check(err)
	defer func() { _ = conn.Close() }()
	// A request whose body is still on its way when the server is told to stop.
	_, err = fmt.Fprintf(conn, "POST /admin/backfill HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", testKey)
	r.check(err)
	in := bufio.NewReader(conn)
	if first, err := in.ReadString('\n'); err != nil || !strings.Contains(first, "100 Continue") {
		t.Fatalf("%q %v", first, err)
	}
	_, err = in.ReadString('\n')
	r.check(err)
	run.stop()
	r.refused(run.addr)
	_, err = conn.Write([]byte("{}"))
	r.check(err)
	res, err := http.ReadResponse(in, nil)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("got %d", res.StatusCode)
	}
	run.wait(t)
}

// refused waits until nothing listens at addr.
func (r *rig) refused(addr string) {
	r.t.Helper()
	for range 1000 {
		conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", addr)
		if err != nil {
			return
		}
		r.check(conn.Close())
	}
	r.t.Fatal("the server still listens")
}

func TestRunCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bulk()
	run := r.run()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", run.addr)
	r.check(err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /admin/records/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testKey)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	run.stop()
	run.wait(t) // and the store can be closed: no export reads it any more
	if n := len(r.server.out.Bounds.Exports); n != 0 {
		t.Errorf("%d exports still run", n)
	}
}

func TestRunFailsWithItsListener(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	r.check(err)
	r.check(l.Close())
	if err := r.server.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serve on 127.0.0.1") {
		t.Errorf("got %v", err)
	}
}
