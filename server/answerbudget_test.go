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
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

// newShare is an answer that notes in cut when it is cut.
func newShare(b *answerBudget, name string, public bool, cut *[]string) *answerShare {
	return &answerShare{budget: b, public: public, abort: func() { *cut = append(*cut, name) }}
}

func TestWhoTakesHisAnswerSlowestGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		share := func(name string, public bool, bytes int64) *answerShare {
			s := newShare(b, name, public, &cut)
			if err := b.acquire(t.Context(), s, bytes); err != nil {
				t.Fatal(err)
			}
			b.printed(s)
			return s
		}
		admin := share("admin", false, 20)
		admin.beginPiece()
		time.Sleep(time.Second / 2) //nolint:forbidigo // of synctest's clock
		slow := share("slow", true, 30)
		slow.beginPiece()
		time.Sleep(time.Second / 4) //nolint:forbidigo // of synctest's clock
		quick := share("quick", true, 30)
		quick.beginPiece()
		silent := share("silent", true, 20) // nothing of it waits for its client
		got := make(chan error, 1)
		late := newShare(b, "late", true, &cut)
		go func() { got <- b.acquire(t.Context(), late, 25) }()
		synctest.Wait()
		if len(cut) > 0 {
			t.Fatalf("%v were cut before anybody was slow", cut)
		}
		for range 8 { // a piece each
			time.Sleep(b.lag / 4) //nolint:forbidigo // of synctest's clock
			quick.beginPiece()
			synctest.Wait()
		}
		if !slices.Equal(cut, []string{"slow"}) {
			t.Fatalf("cut: %v", cut)
		}
		b.release(slow)
		if err := <-got; err != nil || b.held != 95 || b.freeing != 0 {
			t.Errorf("%v, %d bytes held, %d freed", err, b.held, b.freeing)
		}
		for _, s := range []*answerShare{admin, quick, silent, late} {
			b.release(s)
		}
		if b.held != 0 || b.printing != 0 || len(b.open) != 0 {
			t.Errorf("left: %d bytes, %d printing, %d open", b.held, b.printing, len(b.open))
		}
		time.Sleep(b.lag) //nolint:forbidigo // of synctest's clock
	})
}

// TestAdministratorsNeverWaitForTheBudget charges more than there is without waiting:
// the public makes up for it, and administrators only once they exceed it by themselves.
func TestAdministratorsNeverWaitForTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		public, one, two := newShare(b, "public", true, &cut), newShare(b, "one", false, &cut), newShare(b, "two", false, &cut)
		one.beginPiece()
		if err := b.acquire(t.Context(), public, 60); err != nil {
			t.Fatal(err)
		}
		b.printed(public)
		public.beginPiece()
		b.charge(one, 80)
		b.charge(two, 20)
		for _, want := range [][]string{{"public"}, {"public", "one"}} {
			time.Sleep(2 * b.lag) //nolint:forbidigo // of synctest's clock
			synctest.Wait()
			if !slices.Equal(cut, want) {
				t.Errorf("cut: %v, want %v", cut, want)
			}
			b.charge(two, 30)
		}
		for _, s := range []*answerShare{public, one, two} {
			b.release(s)
		}
		time.Sleep(b.lag) //nolint:forbidigo // of synctest's clock
	})
}

func TestRequestsWaitForTheBudgetInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newAnswerBudget(100)
		var cut []string
		var first []*answerShare
		for range b.printers {
			s := newShare(b, "first", true, &cut)
			if err := b.acquire(t.Context(), s, 1); err != nil {
				t.Fatal(err)
			}
			first = append(first, s)
		}
		gone, end := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- b.acquire(gone, newShare(b, "gone", true, &cut), 1) }()
		synctest.Wait()
		next, ready := newShare(b, "next", true, &cut), make(chan error, 1)
		go func() { ready <- b.acquire(t.Context(), next, 1) }()
		synctest.Wait()
		end()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who went got %v", err)
		}
		b.printed(first[0])
		if err := <-ready; err != nil {
			t.Error(err)
		}
		// Answers that go on come before new ones.
		newer, goes := make(chan error, 1), make(chan error, 1)
		go func() { newer <- b.acquire(t.Context(), newShare(b, "newer", true, &cut), 1) }()
		synctest.Wait()
		go func() { goes <- b.acquire(t.Context(), first[0], 0) }()
		synctest.Wait()
		b.release(first[1])
		if err := <-goes; err != nil {
			t.Error(err)
		}
		select {
		case err := <-newer:
			t.Errorf("the new one came first: %v", err)
		default:
		}
		if err := <-newer; !errors.Is(err, errAnswersFull) {
			t.Errorf("who waited for too long got %v", err)
		}
		if len(cut) > 0 {
			t.Errorf("%v were cut though there are bytes", cut)
		}
	})
}

// stalled asks for a path and reads nothing.
func (r *rig) stalled(path string, header ...string) *net.TCPConn {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.http.Listener.Addr().String())
	r.check(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP {
		r.t.Fatalf("a connection of type %T", conn)
	}
	r.check(tcp.SetReadBuffer(4 << 10))
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", path, testKey, strings.Join(header, "\r\n"))
	r.check(err)
	return tcp
}

// long has pages of about 8 MiB.
func (r *rig) long() (paths []string) {
	r.t.Helper()
	var list []store.Listed
	for i := range 12 {
		list = append(list, text(r.t, fmt.Sprintf("k%02d", 11-i), strings.Repeat("x", 900<<10)))
	}
	r.settle(alice, store.AccountActive, map[syntax.NSID][]store.Listed{note: list})
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
	r.server.budget.limit, r.server.budget.lag, r.server.budget.patience = 4<<20, time.Hour, 50*time.Millisecond
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
	t.Parallel()
	r := newRig(t)
	paths := r.long()
	b := r.server.budget
	b.limit, b.lag = 6<<20, 200*time.Millisecond
	b.patience = 5 * time.Minute // how fast this machine is does not matter, only that who reads nothing gives way
	for i := range 40 {
		r.stalled(paths[i%len(paths)], []string{"X-Not: compressed", "Accept-Encoding: gzip"}[i/2%2])
	}
	r.waitHeld("some", func(held int64) bool { return held > 0 })
	for _, path := range paths {
		for _, encoding := range []string{"identity", "gzip"} {
			a := r.do(http.MethodGet, path, "", "Accept-Encoding", encoding)
			if a.status != http.StatusOK || encoding == "identity" && len(a.body) < pageBytes-(1<<20) {
				t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
			}
		}
	}
	if r.server.AnswersCut() == 0 {
		t.Error("nobody was cut")
	}
	r.waitHeld("nothing", func(held int64) bool { return held <= 8<<20 })
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
	b := r.server.budget
	stalled := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for s := range b.open {
			at := s.writing.Load()
			return at > 0 && time.Since(b.epoch)-time.Duration(at) > 100*time.Millisecond
		}
		return false
	}
	for tick := time.Tick(time.Millisecond); !stalled(); {
		<-tick
	}
	b.mu.Lock()
	b.lag, b.limit = 0, 1
	b.advance()
	b.mu.Unlock()
	if r.server.AnswersCut() == 0 {
		t.Fatal("nobody was cut")
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
