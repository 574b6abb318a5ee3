package network

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
)

const neighbour = syntax.DID("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")

// wordless are refusals that do not say what there is not.
func wordless() map[string]http.HandlerFunc {
	const json = "application/json"
	return map[string]http.HandlerFunc{
		"plain text":        hosttest.Says(404, "text/plain", "404: Not Found"),
		"a page":            hosttest.Says(404, "text/html", "<!DOCTYPE html><pre>Cannot GET /xrpc</pre>"),
		"nothing":           hosttest.Says(404, "", ""),
		"json of a gateway": hosttest.Says(404, json, `{"message":"no Route matched with those values"}`),
		"json of a server":  hosttest.Says(404, json, `{"timestamp":1,"status":404,"error":"Not Found","path":"/xrpc"}`),
		"json in a list":    hosttest.Says(404, json, `["RepoNotFound"]`),
		"name of nothing":   hosttest.Says(404, json, `{"error":"NotFound","message":"Not Found"}`),
		"gone":              hosttest.Says(410, "text/plain", "Gone"),
	}
}

// hostOf answers for the accounts that have a handler, and for all others with rest.
func hostOf(t *testing.T, accounts map[syntax.DID]http.HandlerFunc, rest http.HandlerFunc) Host {
	t.Helper()
	return hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		did := r.URL.Query().Get("did")
		if did == "" {
			did = strings.TrimPrefix(r.URL.Path, "/")
		}
		if own, ok := accounts[syntax.DID(did)]; ok {
			own(w, r)
			return
		}
		rest(w, r)
	})
}

func activeAnswer(did syntax.DID) http.HandlerFunc {
	return hosttest.Says(200, "application/json", `{"did":"`+did.String()+`","active":true,"rev":"`+testRev+`"}`)
}

func wantInferred(t *testing.T, err error, inferred bool) {
	t.Helper()
	wantReason(t, err, outcome.ReasonNotFound)
	if e, ok := errors.AsType[*Error](err); ok && e.Inferred != inferred {
		t.Errorf("%v: inferred is %v, want %v", err, e.Inferred, inferred)
	}
}

// TestRefusalWithoutWordsIsReadByWhatElseIsAnswered has hosts refuse an account in every
// way that does not say what there is not.
func TestRefusalWithoutWordsIsReadByWhatElseIsAnswered(t *testing.T) {
	t.Parallel()
	for name, refuse := range wordless() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hostOf(t, map[syntax.DID]http.HandlerFunc{neighbour: activeAnswer(neighbour)}, refuse)
			c := newClient(t, Config{})
			_, err := c.RepoStatus(t.Context(), host, alice)
			wantReason(t, err, outcome.ReasonNoRev) // nobody was answered yet
			if _, err := c.RepoStatus(t.Context(), host, neighbour); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err = c.RepoStatus(t.Context(), host, alice)
				wantInferred(t, err, true)
			}
			_, err = c.RepoStatus(t.Context(), host, neighbour)
			if err != nil {
				t.Errorf("the neighbour: %v", err)
			}
		})
	}
}

// TestProxyThatHasLostItsBackendHidesNobody has a host answer for everybody, and then
// refuse everybody alike.
func TestProxyThatHasLostItsBackendHidesNobody(t *testing.T) {
	t.Parallel()
	for name, refuse := range wordless() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lost atomic.Bool
			host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if lost.Load() {
					refuse(w, r)
					return
				}
				activeAnswer(syntax.DID(r.URL.Query().Get("did")))(w, r)
			})
			c := newClient(t, Config{})
			for _, did := range []syntax.DID{alice, neighbour} {
				if _, err := c.RepoStatus(t.Context(), host, did); err != nil {
					t.Fatal(err)
				}
			}
			lost.Store(true)
			for _, did := range []syntax.DID{alice, neighbour, "did:plc:cccccccccccccccccccccccc", alice} {
				_, err := c.RepoStatus(t.Context(), host, did)
				wantReason(t, err, outcome.ReasonNoRev)
			}
		})
	}
}

// TestWhatIsNoTellingAboutAnAccount has refusals that are not of the kind that may be
// read by what else is answered, or hosts that cannot be asked for another account.
func TestWhatIsNoTellingAboutAnAccount(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	plain := hosttest.Says(404, "text/plain", "404: Not Found")
	for name, x := range map[string]struct {
		refuse http.HandlerFunc
		then   http.HandlerFunc // the neighbour's answer, once it has been answered for
		want   outcome.Reason
	}{
		"no method":             {hosttest.Says(404, json, `{"error":"MethodNotImplemented"}`), activeAnswer(neighbour), outcome.ReasonNoRev},
		"no method, spelt":      {hosttest.Says(404, json, `{"error":"xrpc_not_supported"}`), activeAnswer(neighbour), outcome.ReasonNoRev},
		"not implemented":       {hosttest.Says(501, "text/plain", "Not Implemented"), activeAnswer(neighbour), outcome.ReasonNoRev},
		"not allowed":           {hosttest.Says(405, "text/html", "<h1>"), activeAnswer(neighbour), outcome.ReasonNoRev},
		"bad request":           {hosttest.Says(400, "text/plain", "Bad Request"), activeAnswer(neighbour), outcome.ReasonHTTP4xx},
		"forbidden":             {hosttest.Says(403, json, `{}`), activeAnswer(neighbour), outcome.ReasonHTTP4xx},
		"out of step":           {hosttest.Says(404, json, `{"error":"RepoNotSynchronized"}`), activeAnswer(neighbour), outcome.ReasonBadAnswer},
		"then it breaks":        {plain, hosttest.Says(500, json, `{}`), outcome.ReasonHTTP5xx},
		"then it is busy":       {plain, hosttest.Says(429, "text/plain", "slow down"), "parked: rate_limited"},
		"then a page":           {plain, hosttest.Says(200, "text/html", "<h1>It works!</h1>"), outcome.ReasonBadAnswer},
		"then it is no better":  {plain, plain, outcome.ReasonNoRev},
		"then that one is gone": {plain, hosttest.Says(400, json, `{"error":"RepoNotFound"}`), outcome.ReasonNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			host := hostOf(t, map[syntax.DID]http.HandlerFunc{neighbour: func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					activeAnswer(neighbour)(w, r)
					return
				}
				x.then(w, r)
			}}, x.refuse)
			c := newClient(t, Config{})
			if _, err := c.RepoStatus(t.Context(), host, neighbour); err != nil {
				t.Fatal(err)
			}
			_, err := c.RepoStatus(t.Context(), host, alice)
			if reasonOf(err) != string(x.want) {
				t.Errorf("got %v, want %s", err, x.want)
			}
		})
	}
}

// TestHostIsAskedForAnotherAccount has a host refuse the first account that it is ever
// asked about, and list others.
func TestHostIsAskedForAnotherAccount(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	listing := func(dids ...syntax.DID) http.HandlerFunc {
		var b strings.Builder
		for _, did := range dids {
			b.WriteString(`,{"did":"` + did.String() + `","active":true}`)
		}
		return hosttest.Says(200, json, `{"repos":[`+strings.TrimPrefix(b.String(), ",")+`]}`)
	}
	stranger := syntax.DID("did:plc:cccccccccccccccccccccccc")
	for name, x := range map[string]struct {
		list http.HandlerFunc
		want outcome.Reason
	}{
		"lists":                  {listing(neighbour), outcome.ReasonNotFound},
		"lists this one too":     {listing(alice, stranger, neighbour), outcome.ReasonNotFound},
		"lists this one alone":   {listing(alice), outcome.ReasonNoRev},
		"lists what is not here": {listing(stranger), outcome.ReasonNoRev},
		"lists nobody":           {listing(), outcome.ReasonNoRev},
		"lists nonsense":         {hosttest.Says(200, json, `{"repos":{}}`), outcome.ReasonNoRev},
		"does not list":          {hosttest.Says(404, "text/plain", "404: Not Found"), outcome.ReasonNoRev},
		"breaks":                 {hosttest.Says(500, json, `{}`), outcome.ReasonNoRev},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lists atomic.Int32
			host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				did := syntax.DID(r.URL.Query().Get("did"))
				switch {
				case strings.HasSuffix(r.URL.Path, methodRepos):
					lists.Add(1)
					x.list(w, r)
				case did == neighbour && strings.HasSuffix(r.URL.Path, methodRepoStatus):
					activeAnswer(did)(w, r)
				default:
					hosttest.Says(404, "text/plain", "404: Not Found")(w, r)
				}
			})
			c := newClient(t, Config{})
			for range 3 {
				_, err := c.RepoStatus(t.Context(), host, alice)
				wantReason(t, err, x.want)
			}
			// Once a minute for each of two questions.
			if n := lists.Load(); n > 2 || x.want == outcome.ReasonNotFound && n != 1 {
				t.Errorf("it was asked %d times whom it has", n)
			}
		})
	}
}

// TestDirectoryThatHasLostItsBackendHidesNobody has the directory, or what stands in
// front of it, refuse a DID.
func TestDirectoryThatHasLostItsBackendHidesNobody(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	there := hosttest.Says(200, json, document(neighbour.String(), pdsService("#atproto_pds", "https://pds.example.com"), ""))
	for name, refuse := range wordless() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lost atomic.Bool
			plc := hostOf(t, map[syntax.DID]http.HandlerFunc{neighbour: func(w http.ResponseWriter, r *http.Request) {
				if lost.Load() {
					refuse(w, r)
					return
				}
				there(w, r)
			}}, refuse)
			c := newClient(t, Config{PLC: string(plc)})
			_, err := c.Lookup(t.Context(), alice)
			wantReason(t, err, outcome.ReasonDIDLookup)
			if _, err := c.Lookup(t.Context(), neighbour); err != nil {
				t.Fatal(err)
			}
			_, err = c.Lookup(t.Context(), alice)
			wantInferred(t, err, true)
			lost.Store(true)
			for _, did := range []syntax.DID{alice, neighbour} {
				_, err = c.Lookup(t.Context(), did)
				wantReason(t, err, outcome.ReasonDIDLookup)
			}
		})
	}
	plc := hosttest.Serve(t, hosttest.Says(404, json, `{"message":"DID not registered: `+alice.String()+`"}`))
	_, err := newClient(t, Config{PLC: string(plc)}).Lookup(t.Context(), alice)
	wantInferred(t, err, false)
}
