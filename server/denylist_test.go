package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
)

func (r *rig) deny(body string) result {
	r.t.Helper()
	return r.do(http.MethodPost, "/admin/denylist", body)
}

func TestDeniedAccountsAndHostsAreServedNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, did := range []syntax.DID{alice, bob, carol} {
		r.settle(did, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	}
	if a := r.get("/admin/denylist"); a.status != 200 || a.body != `{"entries":[]}`+"\n" {
		t.Errorf("an empty list: %d %s", a.status, a.body)
	}
	a := r.deny(`{"entry":"` + string(alice) + `","reason":"asked <for> it"}`)
	exact := regexp.MustCompile(`^\{"entry":"did:plc:alice7777777777777777777","reason":"asked <for> it","added_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"\}\n$`)
	if a.status != http.StatusCreated || !exact.MatchString(a.body) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if got := r.export(""); len(got) != 6 { // when it answers, it is done
		t.Errorf("%d records are served after the denial of an account", len(got))
	}
	if a := r.deny(`{"entry":"https://PDS.test/","reason":null}`); a.status != 201 || !strings.Contains(a.body, `{"entry":"pds.test","reason":null,`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if got := r.export(""); len(got) != 0 {
		t.Errorf("%d records are served after the denial of their host", len(got))
	}
	if a := r.deny(`{"entry":"pds.test","reason":"spam"}`); a.status != 201 {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	var body api.Denials
	r.get("/admin/denylist").decode(t, &body)
	if len(body.Entries) != 2 || body.Entries[0].Entry != string(alice) || body.Entries[1].Entry != "pds.test" || *body.Entries[1].Reason != "spam" {
		t.Errorf("list: %+v", body)
	}
	for _, entry := range []string{"pds.test:443", string(alice)} {
		want := fmt.Sprintf(`{"entry":"%s"}`+"\n", strings.TrimSuffix(entry, ":443"))
		if a := r.do(http.MethodDelete, "/admin/denylist?entry="+entry, ""); a.status != 200 || a.body != want {
			t.Errorf("got %d %s, want %s", a.status, a.body, want)
		}
		r.do(http.MethodDelete, "/admin/denylist?entry="+entry, "").want(t, 404, "is not on the deny list")
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	if got := r.export(""); len(got) != 3 {
		t.Errorf("%d records came back", len(got))
	}
}

func TestDenialsThatWouldDoNothingAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, text := range map[string]string{
		"":                                   "name an entry",
		`{"reason":"x"}`:                     "name an entry",
		`{"entry":""}`:                       "entry is an empty string",
		`{"entry":1}`:                        "entry must be a string",
		`{"entry":"did:plc:"}`:               "no valid DID: nothing follows its method",
		`{"entry":"DID:plc:abc"}`:            "neither a DID nor the name of a host",
		`{"entry":"https://a.example/path"}`: "neither a DID nor the name of a host",
		`{"entry":"*.example.com"}`:          "must be as in pds.example.com",
		`{"entry":"a b"}`:                    "neither a DID nor the name of a host",
		`{"entry":"a.example.com."}`:         "must be as in pds.example.com",
		`{"entry":"a..b"}`:                   "must be as in pds.example.com",
		`{"entry":"@alice.example.com"}`:     "neither a DID nor the name of a host",
		`{"entry":"a.example","did":"x"}`:    `unknown member "did": the body may have entry, reason`,
		`{"entry":"a.example","reason":""}`:  "reason is an empty string",
		`["a.example"]`:                      "must be a JSON object",
		`{"entry":"a.example","reason":"` + strings.Repeat("x", 1001) + `"}`: "reason has 1001 bytes, at most 1000",
	} {
		r.deny(body).want(t, 400, text)
	}
	r.do(http.MethodPost, "/admin/denylist?entry=a.example", "").want(t, 400, "the entry goes in the body")
	// The database takes no key as long as these: it must not fail for them.
	for _, long := range []string{strings.Repeat("a", 40<<10), "pds.example.com:" + strings.Repeat("1", 40<<10), "fe80::1%" + strings.Repeat("e", 40<<10)} {
		r.deny(`{"entry":"`+long+`"}`).want(t, 400, "neither a DID nor the name of a host")
	}
	r.deny(`{"entry":"`+strings.Repeat("a", 70<<10)+`"}`).want(t, 413, "more than 65536 bytes")
	for query, text := range map[string]string{
		"": "name an entry", "?entry=": "entry is empty", "?entry=did:x": "no valid DID", "?host=a.example": "unknown parameter",
	} {
		r.do(http.MethodDelete, "/admin/denylist"+query, "").want(t, 400, text)
	}
	r.do(http.MethodDelete, "/admin/denylist?entry=a.example", `{"entry":"b.example"}`).want(t, 400, "nothing is needed in this body")
	r.get("/admin/denylist?limit=1").want(t, 400, "this route takes none")
	if a := r.get("/admin/denylist"); a.body != `{"entries":[]}`+"\n" {
		t.Errorf("list: %s", a.body)
	}
}

func TestDenialDoesNotHoldUpAShutdown(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64 // left until one hangs; below 0: none does
	commits.Store(-1)
	hangs, release := make(chan struct{}), make(chan struct{})
	st, err := store.Open(store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Hooks: store.Hooks{BeforeCommit: func() error {
			if commits.Load() >= 0 && commits.Add(-1) == 0 {
				close(hangs)
				<-release
			}
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, func(c *Config) { c.Store = st })
	r.store = st
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 5)})
	run := r.run()
	commits.Store(2) // the entry is written, and hiding the account hangs
	answered := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+run.addr+"/admin/denylist", strings.NewReader(`{"entry":"`+string(alice)+`"}`))
		if err != nil {
			answered <- err
			return
		}
		req.Header.Set("Authorization", "Bearer "+testKey)
		res, err := r.http.Client().Do(req)
		if err == nil {
			err = res.Body.Close()
			if res.StatusCode != http.StatusServiceUnavailable {
				err = fmt.Errorf("answered %d", res.StatusCode)
			}
		}
		answered <- err
	}()
	<-hangs
	run.stop()
	run.wait(t) // although the account is not hidden yet
	r.check(<-answered)
	close(release)
	// The next start: what is on the list is carried out.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		stats, err := st.Stats(t.Context())
		r.check(err)
		if len(stats.Collections) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", stats.Collections)
		}
	}
	cancel()
	r.check(<-done)
}
