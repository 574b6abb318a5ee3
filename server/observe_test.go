package server

import (
	"net/http"
	"slices"
	"sync"
	"testing"

	"appview/server/answer"
)

func TestAnswersAreMeasured(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[Answered]int{}
	r := newRig(t, func(c *Config) {
		c.Observe = func(a Answered) {
			mu.Lock()
			defer mu.Unlock()
			if a.Took <= 0 {
				t.Errorf("got %+v", a)
			}
			a.Took = 0
			seen[a]++
		}
		c.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	})
	id := r.create("{}")
	for range 2 {
		r.get("/admin/backfill/" + id.String())
	}
	r.get("/admin/nothing/at/all")
	r.get("/admin//backfill")
	r.do(http.MethodPost, "/health", "")
	r.do("BREW", "/health", "")
	r.do(http.MethodGet, "/admin/stats", "", "Authorization", "")
	r.jobs.panics = true
	r.do(http.MethodPost, "/admin/backfill", "{}")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http.URL+"/metrics", http.NoBody)
	r.check(err)
	if res, err := r.http.Client().Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("a broken answer came whole: %d", res.StatusCode)
	}
	r.http.Close() // and with it every handler has ended
	mu.Lock()
	defer mu.Unlock()
	want := map[Answered]int{
		{Route: "/admin/backfill", Method: "POST", Status: 201}:     1,
		{Route: "/admin/backfill", Method: "POST", Status: 500}:     1,
		{Route: "/admin/backfill/{id}", Method: "GET", Status: 200}: 2,
		{Method: "GET", Status: 404}:                                2,
		{Route: "/health", Method: "POST", Status: 405}:             1,
		{Route: "/health", Method: "BREW", Status: 405}:             1,
		{Route: "/admin/stats", Method: "GET", Status: 401}:         1,
	}
	for a, n := range want {
		if seen[a] != n {
			t.Errorf("%+v: %d times, want %d", a, seen[a], n)
		}
	}
	broken := Answered{Route: "/metrics", Method: "GET"} // the client may have tried again
	if seen[broken] == 0 {
		t.Errorf("%+v was not measured", broken)
	}
	for a := range seen {
		if _, wanted := want[a]; !wanted && a != broken {
			t.Errorf("%+v was measured", a)
		}
	}
}

func TestMetricsNeedNoKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("appview_x 1\n")) })
	})
	if a := r.do(http.MethodGet, "/metrics", "", "Authorization", ""); a.status != 200 || a.body != "appview_x 1\n" {
		t.Errorf("got %d %q", a.status, a.body)
	}
	r.do(http.MethodPost, "/metrics", "").want(t, 405, "does not answer POST")
	if routes := newRig(t).server.routes(); slices.ContainsFunc(routes, func(rt answer.Route) bool { return rt.Path == "/metrics" }) {
		t.Error("without metrics there is a route for them")
	}
}
