package network

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
)

func TestReposByCollectionReadsPages(t *testing.T) {
	t.Parallel()
	const cursor = "a+/=&%?# é"
	relay := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/xrpc/com.atproto.sync.listReposByCollection" || q.Get("collection") != status.String() || q.Get("limit") != "1000" || len(q) > 3 {
			t.Errorf("asked %s", r.URL)
		}
		if q.Get("cursor") == "" {
			hosttest.Says(200, "application/json", `{"cursor":"a+/=&%?# \u00e9","repos":[{"did":"did:plc:abc"},{"did":"nonsense","more":[{}]},{"did":"did:web:example.com"},{},7,{"did":null}]}`)(w, r)
			return
		}
		if q.Get("cursor") != cursor {
			t.Errorf("cursor came as %q", q.Get("cursor"))
		}
		hosttest.Says(200, "application/json; charset=utf-8", `{"repos":[{"did":"did:plc:abc"}],"cursor":null}`)(w, r)
	})
	c := newClient(t, Config{Relay: string(relay)})
	p, err := c.ReposByCollection(t.Context(), status, "")
	if err != nil || !slices.Equal(p.DIDs, []syntax.DID{"did:plc:abc", "did:web:example.com"}) || p.Invalid != 4 || p.Cursor != cursor {
		t.Fatalf("got %+v, %v", p, err)
	}
	p, err = c.ReposByCollection(t.Context(), status, p.Cursor)
	if err != nil || len(p.DIDs) != 1 || p.Cursor != "" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if c.Relay() != relay {
		t.Fatalf("relay is %s", c.Relay())
	}
}

func TestReposReadsPages(t *testing.T) {
	t.Parallel()
	relay := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/xrpc/com.atproto.sync.listRepos" || r.URL.Query().Get("limit") != "1000" {
			t.Errorf("asked %s", r.URL)
		}
		hosttest.Says(200, "application/json", `{"repos":[{"did":"did:plc:abc","head":"","rev":"","active":false,"status":"deleted"}]}`)(w, r)
	})
	p, err := newClient(t, Config{Relay: string(relay)}).Repos(t.Context(), "")
	if err != nil || len(p.DIDs) != 1 || p.Cursor != "" || p.Invalid != 0 {
		t.Fatalf("got %+v, %v", p, err)
	}
}

func TestARelayThatCannotListByCollectionIsNamed(t *testing.T) {
	t.Parallel()
	for _, do := range []http.HandlerFunc{
		hosttest.Says(404, "text/plain", "404 page not found"), hosttest.Says(501, "application/json", `{"error":"MethodNotImplemented"}`), hosttest.Says(400, "application/json", `{"error":"MethodNotImplemented"}`),
	} {
		relay := hosttest.Serve(t, do)
		_, err := newClient(t, Config{Relay: string(relay)}).ReposByCollection(t.Context(), status, "")
		if err == nil || !strings.Contains(err.Error(), "use one that can") || !strings.Contains(err.Error(), string(relay)) {
			t.Errorf("got %v", err)
		}
	}
}

func TestARelayIsNeverParkedByTheBreaker(t *testing.T) {
	t.Parallel()
	relay := hosttest.Serve(t, hosttest.Says(502, "text/html", "<h1>"))
	c := newClient(t, Config{Relay: string(relay)})
	for range 20 {
		_, err := c.ReposByCollection(t.Context(), status, "")
		wantReason(t, err, outcome.ReasonHTTP5xx)
	}
}

func TestBadListings(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no repos": `{"cursor":"a"}`, "two lists": `{"repos":[],"repos":[]}`, "no object": `[]`, "repos is an object": `{"repos":{}}`,
		"too many": `{"repos":[` + repeat(`{},`, maxRelayRepos) + `{}]}`, "cut": `{"repos":[{"did":"did:plc:a`, "cursor is an object": `{"repos":[],"cursor":{}}`,
	} {
		relay := hosttest.Serve(t, hosttest.Says(200, "application/json", body))
		_, err := newClient(t, Config{Relay: string(relay)}).Repos(t.Context(), "")
		if reasonOf(err) != string(outcome.ReasonBadAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	relay := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"repos":[],"pad":"`+repeat("x", maxRelayBody)+`"}`))
	_, err := newClient(t, Config{Relay: string(relay)}).Repos(t.Context(), "")
	wantReason(t, err, outcome.ReasonTooLarge)
}

func TestErrorsAreChainsAndLines(t *testing.T) {
	t.Parallel()
	cause := errors.New("because")
	err := error(&Error{Op: "ask", Host: "https://a.example", Reason: outcome.ReasonHTTP4xx, Status: 400, Name: "InvalidRequest", Message: "no", Err: cause})
	if !errors.Is(fmt.Errorf("wrapped: %w", err), cause) {
		t.Error("the cause is lost")
	}
	if got, want := err.Error(), `ask at https://a.example: http_4xx: HTTP 400 InvalidRequest "no": because`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
