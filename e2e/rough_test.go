//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

const (
	roughLimit = 5 * time.Minute // until everything was asked again that went wrong
	// onTheWire is what a request may still be under way when its host says "not now".
	onTheWire = 250 * time.Millisecond
)

// mishap is something that goes wrong with one request.
type mishap struct {
	name   string
	method string // of the request; empty: any
	nth    int    // of the requests of that method
	do     func(w http.ResponseWriter, r *http.Request, answer *httptest.ResponseRecorder)
	pause  time.Duration // that it asks for
}

// rough is what stands between the program and a PDS, as load balancers and bad
// lines do, and makes everything go wrong once, at a known moment.
type rough struct {
	through http.Handler
	mishaps []mishap

	mu     sync.Mutex
	calm   bool
	counts map[string]int
	fired  map[string]int
	pauses []pauseAsked
	asked  []time.Time
}

type pauseAsked struct {
	by       string
	from, to time.Time
}

// refuse answers without asking the PDS.
func refuse(status int, header map[string]string, body string) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) {
	return func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // the client may have gone
	}
}

// cutOff sends a part of the PDS's answer, and breaks the connection.
func cutOff(share int) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) {
	return func(w http.ResponseWriter, _ *http.Request, answer *httptest.ResponseRecorder) {
		begin(w, answer, share)
		panic(http.ErrAbortHandler)
	}
}

// stallAfter sends a part of the PDS's answer, and then nothing until the client goes.
func stallAfter(share int) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) {
	return func(w http.ResponseWriter, r *http.Request, answer *httptest.ResponseRecorder) {
		if share > 0 {
			begin(w, answer, share)
		}
		select {
		case <-r.Context().Done():
		case <-time.After(roughLimit):
		}
		panic(http.ErrAbortHandler)
	}
}

func begin(w http.ResponseWriter, answer *httptest.ResponseRecorder, share int) {
	maps.Copy(w.Header(), answer.Header())
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()*share/100])
	_ = http.NewResponseController(w).Flush()
}

func newRough(p *pds) (*rough, error) {
	through, err := proxyTo(p.endpoint)
	if err != nil {
		return nil, err
	}
	const list, repo, status = "com.atproto.repo.listRecords", "com.atproto.sync.getRepo", "com.atproto.sync.getRepoStatus"
	reset := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10) // of a quota that is not the one that ran out
	return &rough{through: through, counts: map[string]int{}, fired: map[string]int{}, mishaps: []mishap{
		{"429 with a time", "", 5, refuse(429, map[string]string{"Retry-After": "4", "RateLimit-Remaining": "7", "RateLimit-Reset": reset}, `{"error":"RateLimitExceeded"}`), 4 * time.Second},
		{"429 of a balancer, as a web page", list, 6, refuse(429, map[string]string{"Content-Type": "text/html"}, "<html>slow down</html>"), 30 * time.Second},
		{"429 with a body that never ends", list, 9, func(w http.ResponseWriter, r *http.Request, _ *httptest.ResponseRecorder) {
			refuse(429, map[string]string{"Retry-After": "3"}, "slowly")(w, r, nil)
			_ = http.NewResponseController(w).Flush()
			stallAfter(0)(w, r, nil)
		}, 3 * time.Second},
		{"503 with a time", list, 3, refuse(503, map[string]string{"Retry-After": "3", "Content-Type": "text/html"}, "<html>maintenance</html>"), 3 * time.Second},
		{"503 without", status, 3, refuse(503, nil, `{"error":"Unavailable"}`), 0},
		{"502 as a web page", status, 6, refuse(502, map[string]string{"Content-Type": "text/html"}, "<html>bad gateway</html>"), 0},
		{"web page with 200", list, 5, refuse(200, map[string]string{"Content-Type": "text/html"}, "<html>are you human?</html>"), 0},
		{"page cut", list, 2, cutOff(60), 0},
		{"page of another length", list, 8, func(w http.ResponseWriter, _ *http.Request, answer *httptest.ResponseRecorder) {
			refuse(200, map[string]string{"Content-Type": "application/json"}, answer.Body.String()[:answer.Body.Len()/2])(w, nil, nil)
		}, 0},
		{"repo cut", repo, 1, cutOff(70), 0},
		{"repo cut in the beginning", repo, 3, cutOff(1), 0},
		{"no answer", status, 5, stallAfter(0), 0},
		{"repo stalls", repo, 2, stallAfter(50), 0},
	}}, nil
}

func (x *rough) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	x.mu.Lock()
	x.asked = append(x.asked, time.Now())
	x.counts[method]++
	x.counts[""]++
	var m *mishap
	for i := range x.mishaps {
		if c := &x.mishaps[i]; !x.calm && x.fired[c.name] == 0 && (c.method == "" || c.method == method) && x.counts[c.method] >= c.nth {
			m = c
			x.fired[m.name]++
			break
		}
	}
	x.mu.Unlock()
	if m == nil {
		x.through.ServeHTTP(w, r)
		return
	}
	r.Header.Del("Accept-Encoding") // so that what is cut is known
	answer := httptest.NewRecorder()
	x.through.ServeHTTP(answer, r)
	if m.pause > 0 {
		x.mu.Lock()
		x.pauses = append(x.pauses, pauseAsked{m.name, time.Now(), time.Now().Add(m.pause)})
		x.mu.Unlock()
	}
	m.do(w, r, answer)
}

// movedPLC is a directory that names another PDS.
func movedPLC(t *testing.T, plc endpoint, from, to endpoint) endpoint {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var doc map[string]any
		if err := plc.get(r.Context(), r.URL.Path, nil, "", &doc); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		b, err := json.Marshal(doc)
		if err != nil || !strings.Contains(string(b), string(from)) {
			t.Errorf("the document of %s names no PDS of ours: %s, %v", r.URL.Path, b, err)
		}
		_, _ = io.WriteString(w, strings.ReplaceAll(string(b), string(from), string(to)))
	}))
}

// TestRoughLineToARealPDS has everything go wrong once between the program and a
// real PDS, for two jobs at the same time. In the end the index is exact, and the
// PDS was left alone whenever it asked for that.
func TestRoughLineToARealPDS(t *testing.T) {
	t.Parallel()
	parts := installedParts(t)
	rotation, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	plc := startPLC(t, parts, ports[0])
	p := startPDS(t, parts, "rough", ports[1], plc, rotation)
	truth, dids := map[string]listed{}, []string{}
	for i, n := range []int{730, 105, 1, 0, 12, 40, 7, 100, 3} {
		a, err := p.createAccount(t.Context(), "rough"+strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := counted(n, 3, 2)(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		dids = append(dids, a.did)
		for _, c := range []string{statuses, notes, posts} {
			records, err := p.records(t.Context(), a.did, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				truth[r.URI] = r
			}
		}
	}
	line, err := newRough(p)
	if err != nil {
		t.Fatal(err)
	}
	at := serve(t, line)
	x := startIndex(t, plc, movedPLC(t, plc, p.endpoint, at)) // no relay is asked

	began := time.Now()
	for _, request := range []map[string]any{{"dids": dids, "collection": statuses}, {"dids": dids}} {
		id, err := x.create(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				repos, err := x.raw(context.WithoutCancel(t.Context()), "GET", "/admin/backfill/"+id+"/repos", bearer(adminKey), "", nil)
				t.Logf("repos of %v: %s %v", request, repos, err)
			}
		})
	}
	x.allEnd(t)
	t.Logf("took %s, with %d requests to the PDS", time.Since(began), line.counts[""])
	line.mu.Lock()
	for _, m := range line.mishaps {
		if line.fired[m.name] != 1 {
			t.Errorf("%s: happened %d times", m.name, line.fired[m.name])
		}
	}
	for _, pause := range line.pauses {
		for _, asked := range line.asked {
			if asked.After(pause.from.Add(onTheWire)) && asked.Before(pause.to) {
				t.Errorf("asked %s after %q, which asked for %s", asked.Sub(pause.from), pause.by, pause.to.Sub(pause.from))
			}
		}
	}
	line.calm = true
	line.mu.Unlock()
	lines, err := x.export(t.Context(), url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	if err := compare(truth, lines); err != nil {
		t.Error(err)
	}

	// Over a good line, nothing of it is different.
	if _, err := x.create(t.Context(), map[string]any{"dids": dids}); err != nil {
		t.Fatal(err)
	}
	x.allEnd(t)
	again, err := x.export(t.Context(), url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	for _, uri := range slices.Sorted(maps.Keys(again)) {
		if again[uri].raw != lines[uri].raw {
			t.Errorf("%s changed from %s to %s", uri, lines[uri].raw, again[uri].raw)
		}
	}
}

// allEnd waits until every job has completed, and wants nothing to have failed.
func (x *index) allEnd(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), roughLimit)
	defer cancel()
	var jobs []job
	if err := eventually(ctx, func(ctx context.Context) error {
		if err := x.get(ctx, "/admin/backfill/status", nil, bearer(adminKey), &jobs); err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Status == "running" {
				return fmt.Errorf("still at %s", compact(j))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.Status != "completed" || j.Error != nil || *j.ProcessedRepos != *j.TotalRepos {
			t.Errorf("job: %s", compact(j))
		}
	}
}
