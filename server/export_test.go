package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
	"appview/store"
)

// line is a line of an export.
type line struct {
	URI, CID, DID, Collection, RKey, Rev string
	IndexedAt                            string `json:"indexed_at"`
	Value                                json.RawMessage
}

func (r *rig) export(query string) []string {
	r.t.Helper()
	a := r.get("/admin/records/export" + query)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" {
		r.t.Fatalf("export: %d %v %s", a.status, a.header, a.body)
	}
	var uris []string
	for text := range strings.Lines(a.body) {
		var l line
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
	r.settle(alice, store.AccountActive, map[syntax.NSID][]store.Listed{note: texts(t, 3), status: texts(t, 2)})
	r.settle(bob, store.AccountActive, map[syntax.NSID][]store.Listed{note: texts(t, 1)})
	r.settle(carol, store.AccountActive, map[syntax.NSID][]store.Listed{note: texts(t, 4)})
	r.settle(carol, store.AccountTakenDown, nil)
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
	if n := len(r.server.exports); n != 0 {
		t.Errorf("%d exports are still counted", n)
	}
}

func TestExportLineHasExactlyItsMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := verified(t, "self", `{"$type":"com.example.note","text":"<a> & \"b\""}`)
	r.settle(alice, store.AccountActive, map[syntax.NSID][]store.Listed{note: {rec}})
	a := r.get("/admin/records/export")
	var l line
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
	var list []store.Listed
	for i := range 40 {
		list = append(list, text(r.t, fmt.Sprintf("k%02d", 39-i), strings.Repeat("x", 512<<10)))
	}
	r.settle(alice, store.AccountActive, map[syntax.NSID][]store.Listed{note: list})
}

// open starts an export and reads no more than its header.
func (r *rig) open() (net.Conn, *http.Response) {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.http.Listener.Addr().String())
	r.check(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	r.check(conn.(*net.TCPConn).SetReadBuffer(16 << 10)) //nolint:errcheck,forcetypeassert // it was dialled as tcp
	_, err = fmt.Fprintf(conn, "GET /admin/records/export HTTP/1.1\r\nHost: appview\r\nAuthorization: Bearer %s\r\n\r\n", testKey)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
	r.check(err)
	return conn, res
}

func TestClientThatStallsIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.pace = pace{write: 300 * time.Millisecond, window: time.Hour, rate: 1}
	r.bulk()
	conn, res := r.open()
	defer func() { _ = res.Body.Close() }()
	r.idle() // the handler has given up while nothing was read
	r.check(conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
	if _, err := io.Copy(io.Discard, res.Body); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the export ended cleanly: %v", err)
	}
	if log := r.logs.String(); !strings.Contains(log, "the client takes the export too slowly") {
		t.Errorf("log: %s", log)
	}
}

// idle waits until no export runs.
func (r *rig) idle() {
	r.t.Helper()
	for range maxExports {
		select {
		case r.server.exports <- struct{}{}:
		case <-time.After(10 * time.Second):
			r.t.Fatal("an export still runs")
		}
	}
	for range maxExports {
		<-r.server.exports
	}
}

func TestClientThatTricklesIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.pace = pace{write: 10 * time.Second, window: 200 * time.Millisecond, rate: 1 << 40}
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
	t.Parallel()
	r := newRig(t)
	r.bulk()
	conn, first := r.open()
	defer func() { _ = first.Body.Close() }()
	_, second := r.open()
	defer func() { _ = second.Body.Close() }()
	a := r.get("/admin/records/export")
	a.want(t, 429, "2 exports run already")
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
	bad := store.Listed{RKey: "a", Body: record.Body{CID: id, Data: []byte(`{`)}} // nothing that record would make
	r.settle(bob, store.AccountActive, map[syntax.NSID][]store.Listed{note: {bad}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/admin/records/export", nil)
	r.check(err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	res, err := r.http.Client().Do(req)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || n == 0 {
		t.Errorf("after %d bytes the export ended cleanly", n)
	}
	if log := r.logs.String(); !strings.Contains(log, "export cut off") || !strings.Contains(log, string(bob)) {
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
