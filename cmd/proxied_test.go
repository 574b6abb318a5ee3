//go:build browser || nginx

package cmd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// visitor asks a server through an nginx, by paths below where that shows it.
type visitor struct {
	t    *testing.T
	base string
	key  string
	http *http.Client
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	length int64 // as it was told beforehand
	body   []byte
}

func (v visitor) ask(method, path, body string, header ...string) reply {
	v.t.Helper()
	res := v.begin(method, v.base+path, body, header...)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{res.StatusCode, res.Header, res.ContentLength, data}
}

func (v visitor) begin(method, at, body string, header ...string) *http.Response {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, at, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+v.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	return res
}

// wants fails unless the answer has the status and holds the text.
func (v visitor) wants(status int, text, method, path, body string, header ...string) {
	v.t.Helper()
	got := v.ask(method, path, body, header...)
	if got.status != status || !strings.Contains(string(got.body), text) {
		v.t.Errorf("%s %s: %d %.300s, want %d and %q", method, path, got.status, got.body, status, text)
	}
}

// newVisitor is a client that follows no redirect, and takes answers in small pieces.
func newVisitor(t *testing.T, base, dir string) visitor {
	t.Helper()
	return visitor{t: t, base: base, key: strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile))), http: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if tcp, is := conn.(*net.TCPConn); is {
				err = tcp.SetReadBuffer(64 << 10)
			}
			return conn, err
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute, // for what nginx does not pass on
	}}
}

// gate lets hosts answer when it is opened.
type gate struct {
	open chan struct{}
	once sync.Once
}

func closeHosts(world *sandbox.World) *gate {
	g := &gate{open: make(chan struct{})}
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPDS {
			<-g.open
		}
		return sandbox.Fault{}
	})
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// longNotes have an export of some 15 MB, more than all buffers on the way hold.
func longNotes(t *testing.T) *sandbox.World {
	t.Helper()
	return sandboxtest.Start(t, sandbox.Config{Seed: 5, Repos: 15, Hosts: 3, Collections: []sandbox.Collection{
		{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 2, MaxRecords: 5},
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 40, MaxRecords: 40, RecordBytes: 24 << 10},
	}})
}

func TestNginxInFrontOfEverything(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                 string
		isStripped, isSocket bool
	}{
		{"stripped", true, false}, {"stripped over a socket", true, true}, {"kept", false, false}, {"kept over a socket", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, port := newNginx(t)
			world, dir := longNotes(t), t.TempDir()
			hosts := closeHosts(world)
			t.Cleanup(hosts.release)
			args := []string{"--base-path", shownAt + "/"}
			if c.isStripped {
				args = []string{"--public-url", n.url + shownAt}
			}
			if c.isSocket {
				args = append(args, "--listen", service.UnixScheme+filepath.Join(openToAll(t), "http.sock"))
			}
			s := serveIn(t, world, dir, args...)
			n.start(port, upstream(t, documented(t, c.isStripped), strings.TrimSuffix(s.url, shownAt)))
			v := newVisitor(t, n.url+shownAt, dir)
			v.seesThePage()
			v.hearsOfErrors(n)
			v.followsAJob(hosts)
			v.readsRecords()
			v.exports(s)
			v.isCutWithItsKey()
			v.commands()
			if log := read(t, n.dir+"/error.log"); strings.Contains(log, "buffered to a temporary file") {
				t.Errorf("nginx gathers what is to be passed on:\n%s", log)
			}
			if code := s.end(); code != exitOK {
				t.Errorf("ended with %d:\n%s", code, s.log)
			}
		})
	}
}

// seesThePage finds every file of the page by the addresses that lead there.
func (v visitor) seesThePage() {
	v.t.Helper()
	res := v.begin(http.MethodGet, v.base, "")
	_ = res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusMovedPermanently || to != v.base+"/" {
		v.t.Errorf("without its slash: %d to %s", res.StatusCode, to)
	}
	at, seen := v.base+"/", map[string]bool{}
	link := regexp.MustCompile(`(?:src|href)="([^#"][^"]*)"|from "(\./[^"]+)"`)
	for todo := []string{at}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		res := v.begin(http.MethodGet, todo[0], "")
		data, err := io.ReadAll(res.Body)
		if _ = res.Body.Close(); err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(todo[0], at) {
			v.t.Errorf("%s: %d %v", todo[0], res.StatusCode, err)
		}
		here, err := url.Parse(todo[0])
		if err != nil {
			v.t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(data), -1) {
			to, err := here.Parse(found[1] + found[2])
			if err != nil {
				v.t.Fatal(err)
			}
			todo = append(todo, to.String())
		}
	}
	if len(seen) < 12 {
		v.t.Errorf("the page has %d files", len(seen))
	}
	file := v.ask(http.MethodGet, "/web/main.js", "")
	v.wants(http.StatusNotModified, "", http.MethodGet, "/web/main.js", "", "If-None-Match", file.header.Get("ETag"))
	if policy := file.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		v.t.Errorf("the policy is %q", policy)
	}
}

// hearsOfErrors is told by the server what is wrong, and by nginx only outside of the path.
func (v visitor) hearsOfErrors(n *nginx) {
	v.t.Helper()
	v.wants(404, `{"error":"there is no route /nothing`, http.MethodGet, "/nothing", "")
	v.wants(404, `"error":"there is no route`, http.MethodGet, "/appview/", "")
	v.wants(405, "does not answer PUT", http.MethodPut, "/admin/backfill", "")
	v.wants(501, "MethodNotImplemented", http.MethodGet, "/xrpc/a.b.c", "")
	v.wants(400, "is no valid NSID", http.MethodPost, "/admin/backfill", `{"collection":"nonsense"}`)
	v.wants(404, "<html>", http.MethodGet, "/metrics", "") // it is not for the public
	stranger := v
	stranger.key = "hv_the-key-of-somebody-else-here"
	res := stranger.ask(http.MethodGet, "/admin/stats", "")
	if res.status != http.StatusUnauthorized || res.header.Get("WWW-Authenticate") != "Bearer" {
		v.t.Errorf("a stranger: %d %v", res.status, res.header)
	}
	outside := v
	outside.base = n.url
	outside.wants(404, "<html>", http.MethodGet, "/admin/stats", "")
	res = v.ask(http.MethodHead, "/admin/stats", "")
	if res.status != http.StatusOK || len(res.body) > 0 || res.length <= 0 {
		v.t.Errorf("HEAD: %d, %d bytes of %d", res.status, len(res.body), res.length)
	}
	v.wants(200, `"ok"`, http.MethodGet, "/health", "")
	var doc struct{ Servers []struct{ URL string } }
	if res = v.ask(http.MethodGet, "/openapi.json", ""); json.Unmarshal(res.body, &doc) != nil || len(doc.Servers) != 1 {
		v.t.Fatalf("the description is %.300s", res.body)
	}
	at, err := url.Parse(v.base + "/openapi.json")
	if err == nil {
		at, err = at.Parse(doc.Servers[0].URL)
	}
	if err != nil || at.String() != v.base+"/" {
		v.t.Errorf("by its description the server is at %v, %v", at, err)
	}
}

// followsAJob is told of what becomes of a job as it happens, while all hosts wait.
func (v visitor) followsAJob(hosts *gate) {
	v.t.Helper()
	res := v.ask(http.MethodPost, "/admin/backfill", "{}")
	var job struct{ ID, Status string }
	if err := json.Unmarshal(res.body, &job); err != nil || res.status != http.StatusCreated {
		v.t.Fatalf("create: %d %s", res.status, res.body)
	}
	at := res.header.Get("Location")
	if at != shownAt+"/admin/backfill/"+job.ID {
		v.t.Errorf("the job is at %s", at)
	}
	events := v.begin(http.MethodGet, strings.TrimSuffix(v.base, shownAt)+at+"/events", "")
	defer func() { _ = events.Body.Close() }()
	if kind := events.Header.Get("Content-Type"); events.StatusCode != http.StatusOK || kind != "text/event-stream" {
		v.t.Fatalf("events: %d %s", events.StatusCode, kind)
	}
	// The next order is given only when the event of the one before has come.
	orders := map[string]string{"running": "/pause", "paused": "/resume"}
	lines, seen := bufio.NewScanner(events.Body), []string{}
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, isData := strings.CutPrefix(lines.Text(), "data:")
		if !isData {
			continue
		}
		if err := json.Unmarshal([]byte(text), &job); err != nil {
			v.t.Fatal(err)
		}
		if len(seen) > 0 && seen[len(seen)-1] == job.Status {
			continue
		}
		seen = append(seen, job.Status)
		if order := orders[job.Status]; order != "" {
			delete(orders, job.Status)
			v.wants(200, job.ID, http.MethodPost, "/admin/backfill/"+job.ID+order, "")
		} else if job.Status == "running" {
			hosts.release()
		}
	}
	if last := seen[len(seen)-1]; lines.Err() != nil || last != "completed" || len(seen) < 4 || len(orders) > 0 {
		v.t.Errorf("events of %v, %v", seen, lines.Err())
	}
}

// readsRecords reads as the public does.
func (v visitor) readsRecords() {
	v.t.Helper()
	v.key = ""
	var page struct{ Records []struct{ DID, URI string } }
	res := v.ask(http.MethodGet, "/api/records?limit=5&collection="+sandbox.StatusCollection.String(), "", "Accept-Encoding", "gzip")
	zipped, err := gzip.NewReader(bytes.NewReader(res.body))
	if err == nil {
		err = json.NewDecoder(zipped).Decode(&page)
	}
	if err != nil || res.header.Get("Content-Encoding") != "gzip" || len(page.Records) != 5 {
		v.t.Fatalf("records: %d, %v, %s", res.status, err, res.header.Get("Content-Encoding"))
	}
	v.wants(200, page.Records[0].URI, http.MethodGet, withQuery("/xrpc/com.atproto.repo.listRecords", "repo", page.Records[0].DID, "collection", sandbox.StatusCollection.String()), "")
	// Of several MiB, and written while it is read.
	if res = v.ask(http.MethodGet, "/api/records?limit=100&collection="+sandbox.NoteCollection.String(), ""); json.Unmarshal(res.body, &page) != nil || len(page.Records) != 100 {
		v.t.Errorf("a long page has %d records in %d bytes", len(page.Records), len(res.body))
	}
}

// exports gets the export as it is without nginx.
func (v visitor) exports(s *serving) {
	v.t.Helper()
	c, err := (&program{}).newClient(clientOptions{dataDir: s.dir})
	if err != nil {
		v.t.Fatal(err)
	}
	var direct bytes.Buffer
	n, err := c.download(v.t.Context(), download{path: "/admin/records/export", name: "export", unit: "records"}, &direct)
	if err != nil || n < 15*40 {
		v.t.Fatalf("%d records, %v", n, err)
	}
	for _, encoding := range []string{"", "gzip"} {
		res := v.ask(http.MethodGet, "/admin/records/export", "", "Accept-Encoding", encoding)
		if got := res.header.Get("Content-Encoding"); got != encoding {
			v.t.Errorf("asked for %q, got %q", encoding, got)
		}
		if encoding == "gzip" {
			zipped, err := gzip.NewReader(bytes.NewReader(res.body))
			if err == nil {
				res.body, err = io.ReadAll(zipped)
			}
			if err != nil {
				v.t.Fatal(err)
			}
		}
		if !bytes.Equal(res.body, direct.Bytes()) {
			v.t.Errorf("an export of %d bytes is one of %d behind nginx", direct.Len(), len(res.body))
		}
	}
	if res := v.ask(http.MethodHead, "/admin/records/export", ""); res.status != http.StatusOK || len(res.body) > 0 {
		v.t.Errorf("HEAD: %d, %d bytes", res.status, len(res.body))
	}
}

// isCutWithItsKey notices that an export was cut off: it must not look whole.
func (v visitor) isCutWithItsKey() {
	v.t.Helper()
	var key struct{ ID, Key string }
	if made := v.ask(http.MethodPost, "/admin/api-keys", `{"name":"export","permissions":["records:read"]}`); json.Unmarshal(made.body, &key) != nil || key.Key == "" {
		v.t.Fatalf("no key: %s", made.body)
	}
	other := v
	other.key = key.Key
	res := other.begin(http.MethodGet, v.base+"/admin/records/export", "")
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadFull(res.Body, make([]byte, 64<<10)); err != nil {
		v.t.Fatal(err)
	}
	v.wants(204, "", http.MethodDelete, "/admin/api-keys/"+key.ID, "")
	if n, err := io.Copy(io.Discard, res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		v.t.Errorf("an export that was cut off ends after %d bytes with %v", n, err)
	}
}

// commands finds the server by its path.
func (v visitor) commands() {
	v.t.Helper()
	at := []string{"--url", v.base + "/", "--key", v.key}
	want(v.t, exitOK, sandbox.NoteCollection.String(), nil, append([]string{"stats"}, at...)...)
	want(v.t, exitOK, "completed", nil, append([]string{"backfill", "create", "--watch", "--collection", sandbox.StatusCollection.String()}, at...)...)
	copied := filepath.Join(v.t.TempDir(), "copy.db")
	want(v.t, exitOK, "", nil, append([]string{"backup", copied}, at...)...)
	want(v.t, exitOK, "", nil, "check", copied)
}

// The shortest thing that users write: all but exports works with it, which say what is missing.
func TestNginxWithOneLine(t *testing.T) {
	t.Parallel()
	n, port := newNginx(t)
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	n.start(port, "location "+shownAt+"/ { proxy_pass "+s.url+"/; }\n")
	v := newVisitor(t, n.url+shownAt, dir)
	v.seesThePage()
	want(t, exitOK, "completed", nil, "backfill", "create", "--watch", "--collection", sandbox.StatusCollection.String(), "--url", v.base, "--key", v.key)
	v.wants(505, "this answer needs HTTP/1.1: before that a broken answer looks like a whole one (nginx: proxy_http_version 1.1)", http.MethodGet, "/admin/records/export", "")
	s.end()
}
