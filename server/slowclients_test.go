package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
	"appview/store/index"
	"appview/store/storetest"
)

// stalled asks for a path and reads nothing.
func (r *rig) stalled(path string, header ...string) *net.TCPConn {
	r.t.Helper()
	return r.ask(r.http.Listener.Addr(), 4<<10, path, header...)
}

// ask asks a server for a path, with so much room for what it has not read.
func (r *rig) ask(addr net.Addr, room int, path string, header ...string) *net.TCPConn {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", addr.String())
	r.check(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP {
		r.t.Fatalf("a connection of type %T", conn)
	}
	r.check(tcp.SetReadBuffer(room))
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", path, testKey, strings.Join(header, "\r\n"))
	r.check(err)
	return tcp
}

// long has pages of about 8 MiB.
func (r *rig) long() (paths []string) {
	r.t.Helper()
	var list []index.Listed
	for i := range 12 {
		list = append(list, text(r.t, fmt.Sprintf("k%02d", 11-i), strings.Repeat("x", 900<<10)))
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: list})
	return []string{
		"/api/records?collection=" + string(note),
		"/api/records?order=rkey&collection=" + string(note),
		"/api/records?did=" + string(alice),
		"/xrpc/com.atproto.repo.listRecords?repo=" + string(alice) + "&collection=" + string(note),
	}
}

// waitHeld waits until the answers under way take at least so much, or at most.
func (r *rig) waitHeld(what string, is func(int64) bool) {
	r.t.Helper()
	for tick, late := time.Tick(time.Millisecond), time.After(30*time.Second); !is(r.server.AnswerBytes()); {
		select {
		case <-tick:
		case <-late:
			r.t.Fatalf("%d bytes are held, want %s", r.server.AnswerBytes(), what)
		}
	}
}

// TestNobodyElseWaitsForThePublic fills the budget with clients that read nothing, none
// of whom is cut.
func TestNobodyElseWaitsForThePublic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	paths := r.long()
	r.server.out.Bound(4<<20, time.Hour, 50*time.Millisecond)
	for i := range 40 {
		r.stalled(paths[i%len(paths)])
	}
	r.waitHeld("no room", func(held int64) bool { return held > 3<<20 })
	for _, path := range []string{"/health", "/ready", "/admin/backfill/status", "/admin/records?limit=1&collection=" + string(note), "/admin/stats"} {
		if a := r.get(path); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range paths {
		a := r.do(http.MethodGet, path+"&limit=1", "")
		a.want(t, http.StatusServiceUnavailable, "too many answers are under way")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if cuts := r.server.AnswersCut(); cuts > 0 {
		t.Errorf("%d were cut", cuts)
	}
}

// TestHonestClientsGetTheirAnswersBesideSlowOnes has many clients that read nothing, and
// one that reads whole pages, compressed or not.
func TestHonestClientsGetTheirAnswersBesideSlowOnes(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	paths := r.long()
	// How fast this machine is does not matter, only that who reads nothing gives way.
	r.server.out.Bound(6<<20, 500*time.Millisecond, 5*time.Minute)
	for i := range 40 {
		r.stalled(paths[i%len(paths)], []string{"X-Not: compressed", "Accept-Encoding: gzip"}[i/2%2])
	}
	r.waitHeld("some", func(held int64) bool { return held > 0 })
	for _, path := range paths {
		for _, encoding := range []string{"identity", "gzip"} {
			a := r.do(http.MethodGet, path, "", "Accept-Encoding", encoding)
			if a.status != http.StatusOK || encoding == "identity" && len(a.body) < answer.PageBytes-(1<<20) {
				t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
			}
		}
	}
	if r.server.AnswersCut() == 0 {
		t.Error("nobody was cut")
	}
	r.waitHeld("nothing", func(held int64) bool { return held <= 8<<20 })
}

// TestHonestClientsGetTheirAnswersBesideDrips has many clients that take a little of their
// pages all the time, and one that takes whole ones.
func TestHonestClientsGetTheirAnswersBesideDrips(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	paths := r.long()
	r.server.out.Bound(6<<20, 500*time.Millisecond, 5*time.Minute)
	ctx, stop := context.WithCancel(t.Context())
	var drips sync.WaitGroup
	defer drips.Wait()
	defer stop()
	for i := range 40 {
		conn := r.stalled(paths[i%len(paths)])
		drips.Go(func() {
			for tick := time.Tick(50 * time.Millisecond); ctx.Err() == nil; <-tick {
				if _, err := io.CopyN(io.Discard, conn, 8<<10); err != nil {
					return
				}
			}
		})
		context.AfterFunc(ctx, func() { _ = conn.Close() })
	}
	r.waitHeld("some", func(held int64) bool { return held > 0 })
	for _, path := range paths {
		if a := r.do(http.MethodGet, path, ""); a.status != http.StatusOK || len(a.body) < answer.PageBytes-(1<<20) {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
	}
	if r.server.AnswersCut() == 0 {
		t.Error("nobody was cut")
	}
}

// TestSlowClientAloneGetsWholePages has a client take a long page for longer than a request may take to come, and an answer that is not taken to go.
func TestSlowClientAloneGetsWholePages(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	paths := r.long()[:2]
	const timeout = 400 * time.Millisecond
	r.server.out.Bounds.Answer = timeout
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	r.check(err)
	hs := &http.Server{Handler: r.server.Handler(), ReadTimeout: timeout, WriteTimeout: timeout, ConnContext: answer.WithConnection}
	go func() { _ = hs.Serve(l) }()
	t.Cleanup(func() { _ = hs.Close() })
	for _, path := range paths {
		conn := r.ask(l.Addr(), 64<<10, path)
		begun := time.Now()
		r.check(conn.SetDeadline(begun.Add(time.Minute)))
		res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16<<10), nil)
		r.check(err)
		got := 0
		for tick := time.Tick(timeout / 50); ; <-tick {
			n, err := io.CopyN(io.Discard, res.Body, 40<<10)
			got += int(n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %d bytes, %s after its beginning: %v", path, got, time.Since(begun), err)
			}
		}
		r.check(res.Body.Close())
		if took := time.Since(begun); got < 5<<20 || took < 2*timeout {
			t.Errorf("%s: %d bytes in %s", path, got, took)
		}
	}
}

// TestOldClientsGetPagesWhole asks in HTTP/1.0, in which a broken answer whose length was
// not said looks like a whole one.
func TestOldClientsGetPagesWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range r.long() {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.http.Listener.Addr().String())
		r.check(err)
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", path)
		r.check(err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		r.check(err)
		body, err := io.ReadAll(res.Body)
		r.check(err)
		if res.ContentLength != int64(len(body)) || len(body) < answer.PageBytes-(1<<20) {
			t.Errorf("%s: %d bytes of %d", path, len(body), res.ContentLength)
		}
		r.check(res.Body.Close())
		r.check(conn.Close())
	}
}

// TestLongPagesHoldNoTransaction has clients take nothing of pages that are written while
// they are read: meanwhile the file could not reuse what others write.
func TestLongPagesHoldNoTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range r.long() {
		r.stalled(path)
		r.stalled(strings.Replace(path, "/api/", "/admin/", 1))
	}
	r.waitHeld("some", func(held int64) bool { return held > 2<<20 })
	for tick, late := time.Tick(10*time.Millisecond), time.After(30*time.Second); ; {
		load, err := r.store.Load(t.Context())
		r.check(err)
		if load.Reads == 0 {
			return
		}
		select {
		case <-tick:
		case <-late:
			t.Fatalf("%d transactions are open", load.Reads)
		}
	}
}

// TestLongPageIsWholeOrBroken cuts a long page off: the client must not take it for
// a whole one.
func TestLongPageIsWholeOrBroken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := r.long()[0]
	conn := r.stalled(path)
	for tick := time.Tick(time.Millisecond); r.server.AnswersCut() == 0; { // until its client has been waited for
		<-tick
		r.server.out.Bound(1, 100*time.Millisecond, time.Minute)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("a part was taken for the whole")
	}
}

// TestLongPagesHoldEveryRecordOnce compares long pages with what was settled.
func TestLongPagesHoldEveryRecordOnce(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	for _, path := range append(r.long(), "/admin/records?limit=1000&did="+string(alice)) {
		var keys []string
		for cursor := ""; ; {
			a := r.do(http.MethodGet, path+cursor, "")
			var page struct {
				Records []struct{ URI string }
				Cursor  string
			}
			r.check(json.Unmarshal([]byte(a.body), &page))
			for _, rec := range page.Records {
				keys = append(keys, rec.URI[strings.LastIndex(rec.URI, "/")+1:])
			}
			if page.Cursor == "" {
				break
			}
			cursor = "&cursor=" + page.Cursor
		}
		want := []string{"k11", "k10", "k09", "k08", "k07", "k06", "k05", "k04", "k03", "k02", "k01", "k00"}
		if !slices.Equal(keys, want) {
			t.Errorf("%s: %v", path, keys)
		}
	}
}
