package server

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"appview/internal/api"
	"appview/internal/record"
	"appview/server/answer"
	"appview/store/index"
	"appview/store/storetest"
)

func (r *rig) export(query string) []string {
	r.t.Helper()
	a := r.get("/admin/records/export" + query)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" {
		r.t.Fatalf("export: %d %v %s", a.status, a.header, a.body)
	}
	var uris []string
	for text := range strings.Lines(a.body) {
		var l api.Record
		if err := json.Unmarshal([]byte(text), &l); err != nil || !strings.HasSuffix(text, "}\n") {
			r.t.Fatalf("line %q: %v", text, err)
		}
		uris = append(uris, l.URI)
	}
	return uris
}

func TestExportIsEveryServedRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if got := r.export(""); len(got) != 0 {
		t.Errorf("of an empty index: %v", got)
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3), status: texts(t, 2)})
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 1)})
	r.settle(carol, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 4)})
	r.settle(carol, index.AccountTakenDown, nil)
	for query, want := range map[string]int{
		"": 6, "?collection=com.example.note": 4, "?did=" + string(alice): 5, "?collection=com.example.note&did=" + string(alice): 3,
		"?did=" + string(carol): 0, "?did=did:web:unknown.example": 0, "?collection=a.b.unknown": 0,
	} {
		if got := r.export(query); len(got) != want || len(slices.Compact(slices.Sorted(slices.Values(got)))) != want {
			t.Errorf("%s: %v, want %d", query, got, want)
		}
	}
	r.get("/admin/records/export?colection=com.example.note").want(t, 400, "unknown parameter")
	r.get("/admin/records/export?collection=note").want(t, 400, "no valid NSID")
	if n := len(r.server.out.Bounds.Exports); n != 0 {
		t.Errorf("%d exports are still counted", n)
	}
}

func TestExportLineHasExactlyItsMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := verified(t, "self", `{"$type":"com.example.note","text":"<a> & \"b\""}`)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}})
	a := r.get("/admin/records/export")
	var l api.Record
	if err := json.Unmarshal([]byte(a.body), &l); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"uri":"at://%s/com.example.note/self","cid":"%s","did":"%s","collection":"com.example.note","rkey":"self","rev":"%s","indexed_at":"%s","value":%s}`,
		alice, rec.Body.CID, alice, r.rev, l.IndexedAt, l.Value) + "\n"
	if a.body != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if again, err := record.FromJSON(l.Value, l.CID); err != nil || !again.Verified {
		t.Errorf("the value does not prove its cid: %v", err)
	}
	st, err := r.store.Stats(t.Context())
	r.check(err)
	if got := a.header.Get("Appview-Seq"); got != strconv.FormatUint(st.Seq, 10) || st.Seq == 0 {
		t.Errorf("Appview-Seq %q, the last change is %d", got, st.Seq)
	}
}

// bulk fills the index with more than the buffers between server and client hold.
func (r *rig) bulk() {
	r.t.Helper()
	var list []index.Listed
	random, noise := rand.NewChaCha8([32]byte{}), make([]byte, 384<<10)
	for i := range 40 {
		_, _ = random.Read(noise) // does not compress
		list = append(list, text(r.t, fmt.Sprintf("k%02d", 39-i), base64.StdEncoding.EncodeToString(noise)))
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: list})
}

// open starts an export and reads no more than its header. Headers are whole lines.
func (r *rig) open(headers ...string) (net.Conn, *http.Response) {
	r.t.Helper()
	return r.openAt("/admin/records/export", headers...)
}

// openAt is open for any path.
func (r *rig) openAt(path string, headers ...string) (net.Conn, *http.Response) {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.http.Listener.Addr().String())
	r.check(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	r.check(conn.(*net.TCPConn).SetReadBuffer(16 << 10)) //nolint:errcheck,forcetypeassert // it was dialled as tcp
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: appview\r\nAuthorization: Bearer %s\r\n%s\r\n", path, testKey, strings.Join(headers, ""))
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
	r.check(err)
	return conn, res
}

func TestClientThatStallsIsCutOff(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, header := range []string{"", "Accept-Encoding: gzip\r\n"} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.server.out.Bounds.Pace = answer.Pace{Write: 300 * time.Millisecond, Window: time.Hour, Rate: 1}
			r.bulk()
			conn, res := r.open(header)
			defer func() { _ = res.Body.Close() }()
			r.idle() // the handler has given up while nothing was read
			r.check(conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
			r.check(conn.(*net.TCPConn).SetReadBuffer(4 << 20)) //nolint:errcheck,forcetypeassert // it was dialled as tcp
			data, err := io.ReadAll(res.Body)
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) || len(data) == 0 {
				t.Errorf("after %d bytes the export ended with %v", len(data), err)
			}
			if header != "" { // nor does what has come look whole
				z, err := gzip.NewReader(bytes.NewReader(data))
				r.check(err)
				if _, err := io.Copy(io.Discard, z); !errors.Is(err, io.ErrUnexpectedEOF) { //nolint:gosec // it is a test's own answer
					t.Errorf("decompressed, it ended with %v", err)
				}
			}
			if log := r.logs.String(); !strings.Contains(log, "the client takes the answer too slowly") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestFileDoesNotGrowForAClientThatStalls(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Pace = answer.Pace{Write: 300 * time.Millisecond, Window: time.Hour, Rate: 1}
	r.bulk()
	round := 0
	rewrite := func() int64 {
		round++
		list := make([]index.Listed, 50)
		for i := range list {
			list[i] = text(t, fmt.Sprintf("k%02d", 49-i), fmt.Sprint(strings.Repeat("x", 16<<10), round))
		}
		r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{status: list})
		st, err := r.store.Stats(t.Context())
		r.check(err)
		return st.FileBytes
	}
	for range 8 {
		rewrite()
	}
	_, res := r.open()
	defer func() { _ = res.Body.Close() }()
	for range 8 { // their pages cannot be used again while the export reads
		rewrite()
	}
	r.idle()
	cut := rewrite()
	for range 40 {
		if size := rewrite(); size > cut {
			t.Fatalf("the file grew from %d to %d bytes after the client was cut", cut, size)
		}
	}
}

func TestExportOutlastsTheTimeoutsOfOtherRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bulk()
	r.http.Close()
	r.http = httptest.NewUnstartedServer(r.server.Handler())
	r.http.Config.ReadTimeout, r.http.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	r.http.Start()
	t.Cleanup(r.http.Close)
	_, res := r.open()
	defer func() { _ = res.Body.Close() }()
	<-time.After(300 * time.Millisecond) // nothing tells that a deadline has passed
	data, err := io.ReadAll(res.Body)
	if lines := strings.Count(string(data), "\n"); err != nil || lines != 40 {
		t.Errorf("%d records, %v", lines, err)
	}
}

func TestExportWhileTheCollectionChangesIsOneMoment(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	moments := map[string]string{"0": ""} // by Appview-Seq
	change := func(round int) {
		list := make([]index.Listed, 200)
		for i := range list {
			list[i] = text(t, fmt.Sprintf("k%03d", 199-i), fmt.Sprint(strings.Repeat("x", 1<<10), i%7*round))
		}
		dids := []syntax.DID{alice, bob, carol}
		r.settle(dids[round%3], index.AccountActive, map[syntax.NSID][]index.Listed{note: list[:100+round]})
		a := r.get("/admin/records/export?collection=com.example.note")
		moments[a.header.Get(api.Seq)] = a.body
	}
	change(0)
	stop := make(chan struct{})
	type export struct{ seq, body string }
	seen := make([][]export, answer.MaxExports-1) // one is for this goroutine
	var clients errgroup.Group
	for i := range seen {
		clients.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/admin/records/export?collection=com.example.note", nil)
				if err != nil {
					return err
				}
				req.Header.Set("Authorization", "Bearer "+testKey)
				res, err := r.http.Client().Do(req)
				if err != nil {
					return err
				}
				data, err := io.ReadAll(res.Body)
				if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
					return fmt.Errorf("export: %d %w", res.StatusCode, err)
				}
				seen[i] = append(seen[i], export{res.Header.Get(api.Seq), string(data)})
			}
		})
	}
	for round := range 40 {
		change(round + 1)
	}
	close(stop)
	r.check(clients.Wait())
	for _, list := range seen {
		if len(list) == 0 {
			t.Error("no export ran meanwhile")
		}
		for _, e := range list {
			if want, ok := moments[e.seq]; !ok || e.body != want {
				t.Errorf("the export of %s is not what was there then (known: %t)", e.seq, ok)
			}
		}
	}
}

// idle waits until no export runs.
func (r *rig) idle() {
	r.t.Helper()
	for range answer.MaxExports {
		select {
		case r.server.out.Bounds.Exports <- struct{}{}:
		case <-time.After(10 * time.Second):
			r.t.Fatal("an export still runs")
		}
	}
	for range answer.MaxExports {
		<-r.server.out.Bounds.Exports
	}
}

func TestClientThatTricklesIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Pace = answer.Pace{Write: 10 * time.Second, Window: 200 * time.Millisecond, Rate: 1 << 40}
	r.bulk()
	_, res := r.open()
	defer func() { _ = res.Body.Close() }()
	one := make([]byte, 4<<10)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 20_000 { // reads on and on, slowly
		if _, err := res.Body.Read(one); err != nil {
			if errors.Is(err, io.EOF) {
				t.Errorf("the export ended cleanly: %v", err)
			}
			r.idle()
			return
		}
		<-tick.C
		if strings.Contains(r.logs.String(), "bytes a second") {
			tick.Reset(time.Nanosecond) // it was cut: drain what is in the buffers
		}
	}
	t.Error("the export was never cut")
}

func TestOnlyTwoExportsRunAtOnce(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	r.bulk()
	conn, first := r.open()
	defer func() { _ = first.Body.Close() }()
	_, second := r.open()
	defer func() { _ = second.Body.Close() }()
	a := r.get("/admin/records/export")
	a.want(t, 429, "exports as may run at once (2) run already")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.check(conn.Close()) // a client that goes away makes room
	if _, err := io.Copy(io.Discard, second.Body); err != nil {
		t.Errorf("the second export: %v", err)
	}
	r.idle()
	if got := r.export(""); len(got) != 40 {
		t.Errorf("the next export has %d records", len(got))
	}
}

func TestExportBreaksTheConnectionOnAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bulk()
	id := text(t, "x", "x").Body.CID
	bad := index.Listed{RKey: "a", Body: record.Body{CID: id, Data: []byte(`{`)}} // nothing that record would make
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: {bad}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/admin/records/export", nil)
	r.check(err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	res, err := r.http.Client().Do(req)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || n == 0 {
		t.Errorf("after %d bytes the export ended cleanly", n)
	}
	if log := r.logs.String(); !strings.Contains(log, "answer cut off") || !strings.Contains(log, string(bob)) {
		t.Errorf("log: %s", log)
	}
}

func TestExportWantsHTTP11(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.http.Listener.Addr().String())
	r.check(err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /admin/records/export HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n", testKey)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("got %d", res.StatusCode)
	}
}
