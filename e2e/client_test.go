//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// clientPlan tells client.mjs what there is to compare.
type clientPlan struct {
	Index   endpoint        `json:"index"`
	Repos   []clientRepo    `json:"repos"`
	Refused []clientRefused `json:"refused"`
}

// clientRepo is a repo that index and PDS both serve.
type clientRepo struct {
	Name     string         `json:"name"`
	DID      string         `json:"did"`
	Handle   string         `json:"handle"`
	PDS      endpoint       `json:"pds"`
	Counts   map[string]int `json:"counts"`   // records by collection
	Mistakes string         `json:"mistakes"` // the collection to make mistakes over; none if empty
}

// clientRefused is a record that was served until its account went away.
type clientRefused struct {
	Name       string   `json:"name"`
	DID        string   `json:"did"`
	PDS        endpoint `json:"pds"`
	Collection string   `json:"collection"`
	RKey       string   `json:"rkey"`
	Error      string   `json:"error"` // of the index
}

// clientReport is the last line that client.mjs prints.
type clientReport struct {
	Differences int `json:"differences"`
	Pages       int `json:"pages"`
	Records     int `json:"records"`
	Errors      int `json:"errors"`
	Refusals    int `json:"refusals"`
	Origins     int `json:"origins"`
}

// clientRepo describes an account for the client. The truth has to be fresh.
func (r *run) clientRepo(a *account) clientRepo {
	repo := clientRepo{Name: a.name, DID: a.did, Handle: a.name + a.pds.domain, PDS: a.pds.endpoint, Counts: map[string]int{}}
	for _, c := range []string{statuses, notes, posts} {
		repo.Counts[c] = len(r.of(a.did, c))
	}
	return repo
}

// refusal names a record that an account has now and that the index is to
// refuse with the given error once the account has gone.
func (r *run) refusal(t *testing.T, a *account, name string) clientRefused {
	t.Helper()
	uris := slices.Sorted(maps.Keys(r.of(a.did, statuses)))
	if len(uris) == 0 {
		t.Fatalf("%s has no record to refuse", a.name)
	}
	return clientRefused{
		Name: a.name, DID: a.did, PDS: a.pds.endpoint, Collection: statuses,
		RKey: uris[0][strings.LastIndex(uris[0], "/")+1:], Error: name,
	}
}

// askByClient lets Bluesky's own client for TypeScript ask index and PDS the
// same and compares what it gets, errors included.
func (r *run) askByClient(t *testing.T, repos []clientRepo, refused ...clientRefused) clientReport {
	t.Helper()
	report, printed := r.runClient(t, clientPlan{Index: r.index.endpoint, Repos: repos, Refused: refused})
	if report.Differences > 0 {
		t.Errorf("the official client sees %d differences:\n%s", report.Differences, printed)
	}
	t.Logf("the official client compared %s", compact(report))
	return report
}

// runClient carries out a plan and returns also the end of what was printed.
func (r *run) runClient(t *testing.T, plan clientPlan) (clientReport, string) {
	t.Helper()
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatalf("encode the client's plan: %v", err)
	}
	file := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatalf("write the client's plan: %v", err)
	}
	parts := r.net.parts
	parts.show(t, "client.mjs")
	p := parts.node(t, "client", nil, "client.mjs", file)
	if err := p.wait(); err != nil {
		t.Fatalf("the official client: %v\n%s", err, p.tail())
	}
	var report clientReport
	lines := strings.Split(p.tail(), "\n")
	if err := decode([]byte(lines[len(lines)-1]), &report); err != nil {
		t.Fatalf("what the official client's run printed: %v\n%s", err, p.tail())
	}
	return report, p.tail()
}

// askAll reads repos of every kind and makes every mistake.
func (r *run) askAll(t *testing.T) {
	t.Helper()
	c := r.cast
	changing := r.clientRepo(c.changing)
	changing.Mistakes = statuses
	got := r.askByClient(t, []clientRepo{r.clientRepo(c.largeRepo), r.clientRepo(c.odd), changing})
	if got.Pages < 100 || got.Records < 50 || got.Errors < 25 || got.Origins < 7 {
		t.Errorf("the official client compared only %s", compact(got))
	}
}

// askRefused reads what has changed and what is no longer served.
func (r *run) askRefused(t *testing.T, refused ...clientRefused) {
	t.Helper()
	c := r.cast
	got := r.askByClient(t, []clientRepo{r.clientRepo(c.changing), r.clientRepo(c.moving), r.clientRepo(c.emptied)}, refused...)
	if got.Refusals != 2*len(refused) {
		t.Errorf("the official client was refused %d times, want twice for each of %d", got.Refusals, len(refused))
	}
}

// requireClientNotices guards the judge: it puts an index that lies in front of
// the client, in every way that the client is there to notice.
func (r *run) requireClientNotices(t *testing.T) {
	t.Helper()
	repo := r.clientRepo(r.cast.changing)
	repo.Counts = map[string]int{statuses: repo.Counts[statuses]}
	repo.Mistakes = statuses
	for lie, tell := range map[string]liar{
		"nothing":              {}, // the proxy itself is not what is noticed
		"a changed value":      {old: `"createdAt":"2026-01-02T00:00:03`, new: `"createdAt":"2026-01-02T00:00:04`},
		"a lost cursor":        {old: `"cursor":`, new: `"marker":`},
		"the wrong direction":  {old: "reverse=true", new: "reverse=false"},
		"another error's name": {old: `"RecordNotFound"`, new: `"NotFound"`},
		"closed to browsers":   {old: "Access-Control-Allow-Origin"},
	} {
		proxy := serve(t, tell.before(t, r.index.endpoint))
		report, printed := r.runClient(t, clientPlan{Index: proxy, Repos: []clientRepo{repo}})
		if noticed := report.Differences > 0; noticed == (tell == liar{}) {
			t.Errorf("the official client's comparison makes %d differences of %s:\n%s", report.Differences, lie, printed)
		}
	}
}

// liar replaces a text in the queries and the answers that pass it, and removes
// the header of that name.
type liar struct{ old, new string }

func (l liar) before(t *testing.T, to endpoint) http.Handler {
	t.Helper()
	u, err := url.Parse(string(to))
	if err != nil {
		t.Fatalf("proxy to %s: %v", to, err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.URL.RawQuery = strings.ReplaceAll(r.Out.URL.RawQuery, l.old, l.new)
			r.Out.Header.Del("Accept-Encoding") // compressed answers could not be changed
		},
		ModifyResponse: func(res *http.Response) error {
			res.Header.Del(l.old)
			body, err := io.ReadAll(res.Body)
			if err != nil {
				return err
			}
			body = bytes.ReplaceAll(body, []byte(l.old), []byte(l.new))
			res.Body = io.NopCloser(bytes.NewReader(body))
			res.ContentLength = int64(len(body))
			res.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}
}
