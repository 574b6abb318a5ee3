package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/jobs"
)

// command sends a command to a job over a connection of its own, with a header and
// whatever of a body, and returns the answer and the connection behind it.
func (r *rig) command(path, header string, body func(io.Writer)) (result, net.Conn) {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.http.Listener.Addr().String())
	r.check(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	r.check(conn.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", path, testKey, header)
	r.check(err)
	body(conn)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatalf("%s with %q is not answered: %v", path, header, err)
	}
	data, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		r.t.Fatal(err)
	}
	if res.Close { // ReadResponse takes the header out
		res.Header.Set("Connection", "close")
	}
	return result{res.StatusCode, res.Header, string(data)}, conn
}

// sends is a body that is sent at once.
func sends(text string) func(io.Writer) {
	return func(w io.Writer) { _, _ = io.WriteString(w, text) }
}

func sized(body string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(body)) }

// TestCommandsLookAtNoBody sends all kinds of bodies with commands that need none, and
// some that never come. Each is answered at once, and the connection is closed.
func TestCommandsLookAtNoBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	many := strings.Repeat("x", 100<<10)
	var sending sync.WaitGroup
	t.Cleanup(sending.Wait) // behind the closing of the connections
	endless := func(w io.Writer) {
		sending.Go(func() {
			for n := 0; ; n += len(many) {
				if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", len(many), many); err != nil {
					return
				}
				if n > 64<<20 {
					t.Error("a body without an end is read on and on")
					return
				}
			}
		})
	}
	for name, c := range map[string]struct {
		header string
		body   func(io.Writer)
	}{
		"null":                {"Content-Type: application/json\r\n" + sized("null"), sends("null")},
		"object":              {"Content-Type: application/json\r\n" + sized("{}"), sends("{}")},
		"unknown member":      {sized(`{"force":true}`), sends(`{"force":true}`)},
		"broken JSON":         {"Content-Type: application/json\r\n" + sized(`{"a`), sends(`{"a`)},
		"text":                {"Content-Type: text/plain\r\n" + sized("please"), sends("please")},
		"form":                {"Content-Type: application/x-www-form-urlencoded\r\n" + sized("a=b"), sends("a=b")},
		"not UTF-8":           {sized("\xff\xfe\x00"), sends("\xff\xfe\x00")},
		"100 KiB":             {sized(many), sends(many)},
		"chunked":             {"Transfer-Encoding: chunked\r\n", sends("4\r\nnull\r\n0\r\n\r\n")},
		"broken chunks":       {"Transfer-Encoding: chunked\r\n", sends("no number\r\n")},
		"chunks without end":  {"Transfer-Encoding: chunked\r\n", endless},
		"that never comes":    {"Content-Length: 10\r\n", sends("")},
		"of which half comes": {"Content-Length: 10\r\n", sends("half ")},
		"huge, never sent":    {"Content-Length: 99999999999\r\n", sends("")},
		"huge, begun":         {"Content-Length: 99999999999\r\n", sends(many)},
		"after 100-continue":  {"Expect: 100-continue\r\nContent-Length: 4\r\n", sends("")},
		"huge after 100":      {"Expect: 100-continue\r\nContent-Length: 99999999999\r\n", sends("")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := r.create("")
			for _, what := range []struct{ command, status string }{{"pause", "pausing"}, {"resume", "running"}, {"cancel", "cancelling"}} {
				a, conn := r.command("/admin/backfill/"+id.String()+"/"+what.command, c.header, c.body)
				if want := `{"id":"` + id.String() + `","status":"` + what.status + `"}` + "\n"; a.status != 200 || a.body != want || a.header.Get("Connection") != "close" {
					t.Errorf("%s: %d %v %s", what.command, a.status, a.header, a.body)
				}
				if n, err := conn.Read(make([]byte, 1)); n > 0 || isTimeout(err) {
					t.Errorf("%s: the connection goes on: %d bytes, %v", what.command, n, err)
				}
				if what.command == "pause" {
					job, err := r.store.Jobs.Job(t.Context(), id)
					if err == nil {
						_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			a, _ := r.command("/admin/backfill/"+id.String()+"/pause", c.header, c.body)
			a.want(t, 400, "is cancelling") // refused for what the job is, not for the body
		})
	}
}

func isTimeout(err error) bool {
	late, is := errors.AsType[net.Error](err)
	return is && late.Timeout()
}

// TestCommandsWithoutBodyShareAConnection: only a body costs the connection.
func TestCommandsWithoutBodyShareAConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := "/admin/backfill/" + r.create("").String() + "/cancel"
	a, conn := r.command(path, "Content-Length: 0\r\n", sends(""))
	if a.status != 200 || a.header.Get("Connection") != "" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, testKey)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	r.check(err)
	if r.check(res.Body.Close()); res.StatusCode != http.StatusBadRequest {
		t.Errorf("the second command: %s", res.Status)
	}
}

// TestPublicReadsIgnoreUnknownParameters: as a PDS does. What they are does not matter;
// known ones, and all of administrators, are as strict as ever.
func TestPublicReadsIgnoreUnknownParameters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {text(t, "a", "1"), text(t, "b", "2")}})
	in := "repo=" + string(alice) + "&collection=" + string(note)
	for _, path := range []string{
		"/api/records?collection=" + string(note),
		"/api/records?did=" + string(alice),
		"/xrpc/com.atproto.repo.listRecords?" + in,
		"/xrpc/com.atproto.repo.getRecord?rkey=a&" + in,
	} {
		want := r.get(path)
		if want.status != 200 {
			t.Fatalf("%s: %d %s", path, want.status, want.body)
		}
		for _, more := range []string{"&utm_source=x", "&x", "&x=1&x=2", "&x=", "&=", "&", "&&", "&x=%zz", "&%zz=1", "&a;b=1", "&a=1;b", "&Collection=y", "&x%00=%00"} {
			if a := r.get(path + more); a.status != 200 || a.body != want.body {
				t.Errorf("%s: %d %s", path+more, a.status, a.body)
			}
		}
		for _, more := range []string{"&limit=0", "&limit=1&limit=2", "&limit=%zz", "&%6cimit=0"} {
			if strings.Contains(path, "getRecord") {
				break // to which limit is as unknown as anything
			}
			if a := r.get(path + more); a.status != 400 {
				t.Errorf("%s: %d %s", path+more, a.status, a.body)
			}
		}
		r.get(path+"&collection=com.example.other&collection=y").want(t, 400, "")
	}
	r.get("/api/records?colection="+string(note)).want(t, 400, "name a collection")
	r.get("/admin/records?collection="+string(note)+"&x=1").want(t, 400, `unknown parameter "x"`)
	for _, path := range []string{"/", "/health", "/ready", "/openapi.json"} {
		if a := r.get(path + "?x=%zz&y=1;2"); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}
