package cmd

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/sandbox"
	"appview/store/storetest"
)

// between is a proxy in front of a server, with a say in what happens to events.
func between(t *testing.T, s *serving, events func(w http.ResponseWriter, r *http.Request, pass http.Handler)) (at string, asked *atomic.Int64) {
	t.Helper()
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	pass.Transport = &http.Transport{DisableKeepAlives: true}
	asked = new(atomic.Int64)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			if !strings.HasSuffix(r.URL.Path, "/pds-summary") { // which is asked for by the clock
				asked.Add(1)
			}
			pass.ServeHTTP(w, r)
			return
		}
		events(w, r, pass)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL, asked
}

func TestWatchSurvivesProxiesThatBreakEvents(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	for name, events := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"gathers": func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			<-r.Context().Done() // it would pass the answer on when that is whole
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "<html>", http.StatusBadGateway)
		},
		"cuts": func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			rec := &cutAfterFirst{ResponseWriter: w}
			defer func() { _ = recover() }() // the proxy's own way to break off
			pass.ServeHTTP(rec, r)
		},
		"knows no events": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":"there is no route"}`)
		},
	} {
		var fired atomic.Int64
		at, asked := between(t, s, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			fired.Add(1)
			events(w, r, pass)
		})
		out := want(t, exitOK, "status     completed", nil, "backfill", "create", "--watch", "--url", at, "--key", key,
			"--collection", sandbox.StatusCollection.String())
		least := int64(3) // created, looked at, shown
		if name == "cuts" {
			least = 2 // the first event may have been the final one
		}
		if fired.Load() == 0 || asked.Load() < least {
			t.Errorf("a proxy that %s: %d requests for events, %d others:\n%s", name, fired.Load(), asked.Load(), out)
		}
	}
	s.end()
}

// cutAfterFirst breaks off when the first event has passed.
type cutAfterFirst struct {
	http.ResponseWriter

	sent bool
}

func (c *cutAfterFirst) Write(p []byte) (int, error) {
	if c.sent {
		panic(http.ErrAbortHandler)
	}
	c.sent = strings.Contains(string(p), "data:")
	return c.ResponseWriter.Write(p)
}

func (c *cutAfterFirst) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestWatchFollowsEvents(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	var streams atomic.Int64
	at, asked := between(t, s, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		streams.Add(1)
		pass.ServeHTTP(w, r)
	})
	want(t, exitOK, "status     completed", nil, "backfill", "create", "--watch", "--url", at, "--key", key)
	if streams.Load() != 1 || asked.Load() != 2 { // created, shown at the end
		t.Errorf("%d streams, %d other requests", streams.Load(), asked.Load())
	}
	s.end()
}

func TestFollowGivesUpOnSilence(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "retry: 2000\n\n: still here\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer silent.Close()
	c := &client{http: silent.Client(), base: silent.URL, key: testKey}
	_, err := c.follow(t.Context(), "x", 50*time.Millisecond, func(term.Job, json.RawMessage) { t.Error("there was nothing to show") })
	if err == nil { // on a busy machine not even the header comes in time
		t.Errorf("got %v", err)
	}
}
