package network

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/sandbox/sandboxtest"
)

const testKey = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme" // secp256k1

func document(did, service, verification string) string {
	return `{"@context":["https://www.w3.org/ns/did/v1"],"id":"` + did + `","alsoKnownAs":["at://alice.test"],"verificationMethod":[` + verification + `],"service":[` + service + `]}`
}

func pdsService(id, endpoint string) string {
	return `{"id":"` + id + `","type":"AtprotoPersonalDataServer","serviceEndpoint":"` + endpoint + `"}`
}

func TestLookup(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	did := alice.String()
	key := `{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"` + testKey + `"}`
	for name, c := range map[string]struct {
		do   http.HandlerFunc
		want outcome.Reason
		pds  Host
		key  bool
	}{
		"short id":              {hosttest.Says(200, json, document(did, pdsService("#atproto_pds", "https://pds.example.com"), key)), "", "https://pds.example.com", true},
		"long id":               {hosttest.Says(200, json, document(did, pdsService(did+"#atproto_pds", "https://pds.example.com"), key)), "", "https://pds.example.com", true},
		"as did+ld+json":        {hosttest.Says(200, "application/did+ld+json", document(did, pdsService("#atproto_pds", "https://pds.example.com/"), "")), "", "https://pds.example.com", false},
		"private while allowed": {hosttest.Says(200, json, document(did, pdsService("#atproto_pds", "http://10.0.0.1:2583"), key)), "", "http://10.0.0.1:2583", true},
		"another one's service": {hosttest.Says(200, json, document(did, pdsService("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb#atproto_pds", "https://pds.example.com"), key)), outcome.ReasonNoPDS, "", true},
		"another service":       {hosttest.Says(200, json, document(did, `{"id":"#bsky_notif","type":"X","serviceEndpoint":"https://x.example"}`, key)), outcome.ReasonNoPDS, "", true},
		"another type":          {hosttest.Says(200, json, document(did, `{"id":"#atproto_pds","type":"X","serviceEndpoint":"https://x.example"}`, key)), outcome.ReasonNoPDS, "", true},
		"empty endpoint":        {hosttest.Says(200, json, document(did, pdsService("#atproto_pds", ""), key)), outcome.ReasonNoPDS, "", true},
		"endpoint with path":    {hosttest.Says(200, json, document(did, pdsService("#atproto_pds", "https://pds.example.com/xrpc"), key)), outcome.ReasonBadEndpoint, "", true},
		"broken key":            {hosttest.Says(200, json, document(did, pdsService("#atproto_pds", "https://pds.example.com"), strings.Replace(key, testKey, "z123", 1))), "", "https://pds.example.com", false},
		"another one's":         {hosttest.Says(200, json, document("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", "", "")), outcome.ReasonDIDLookup, "", false},
		"no json":               {hosttest.Says(200, json, `{"id":`), outcome.ReasonDIDLookup, "", false},
		"no services":           {hosttest.Says(200, json, `{"id":"`+did+`","service":{}}`), outcome.ReasonNoPDS, "", false},
		"no id":                 {hosttest.Says(200, json, `{"service":[`+pdsService("#atproto_pds", "https://pds.example.com")+`]}`), outcome.ReasonDIDLookup, "", false},
		"id of another case":    {hosttest.Says(200, json, `{"Id":"`+did+`","service":[`+pdsService("#atproto_pds", "https://pds.example.com")+`]}`), outcome.ReasonDIDLookup, "", false},
		"error in a 200":        {hosttest.Says(200, json, `{"error":"NotFound","message":"DID not registered: `+did+`"}`), outcome.ReasonDIDLookup, "", false},
		"deep":                  {hosttest.Says(200, json, `{"a":`+repeat("[", 1000)+repeat("]", 1000)+`}`), outcome.ReasonDIDLookup, "", false},
		"web page":              {hosttest.Says(200, "text/html", "<html>"), outcome.ReasonDIDLookup, "", false},
		"too large":             {hosttest.Says(200, json, `{"id":"`+did+`","x":"`+repeat("x", maxDocument)+`"}`), outcome.ReasonTooLarge, "", false},
		"unknown":               {hosttest.Says(404, json, `{"message":"DID not registered: did:plc:x"}`), outcome.ReasonNotFound, "", false},
		"unknown web page":      {hosttest.Says(404, "text/html", `<h1>not found</h1>`), outcome.ReasonDIDLookup, "", false},
		"unknown as text":       {hosttest.Says(404, "text/plain", "404 page not found"), outcome.ReasonDIDLookup, "", false},
		"unknown to a gateway":  {hosttest.Says(404, json, `{"message":"no Route matched with those values"}`), outcome.ReasonDIDLookup, "", false},
		"gone as text":          {hosttest.Says(410, "text/plain", "Gone"), outcome.ReasonDIDLookup, "", false},
		"malformed to a proxy":  {hosttest.Says(400, "text/plain", "Bad Request"), outcome.ReasonDIDLookup, "", false},
		"tombstoned":            {hosttest.Says(410, json, `{"message":"DID not available"}`), outcome.ReasonTombstoned, "", false},
		"malformed":             {hosttest.Says(400, json, `{"message":"invalid did"}`), outcome.ReasonBadDID, "", false},
		"forbidden":             {hosttest.Says(403, json, `{}`), outcome.ReasonDIDLookup, "", false},
		"broken":                {hosttest.Says(500, json, `{}`), outcome.ReasonDIDLookup, "", false},
		"cut":                   {hosttest.CutBody, outcome.ReasonDIDLookup, "", false},
		"gone":                  {hosttest.HangUp, outcome.ReasonDIDLookup, "", false},
		"busy":                  {hosttest.Says(429, "text/html", "slow down"), "parked: rate_limited", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plc := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/"+did || r.UserAgent() == "" {
					t.Errorf("asked %s as %s", r.URL, r.UserAgent())
				}
				c.do(w, r)
			})
			client := newClient(t, Config{PLC: string(plc)})
			id, err := client.Lookup(t.Context(), alice)
			key, errKey := id.Key()
			if reasonOf(err) != string(c.want) || id.PDS != c.pds || (errKey == nil) != c.key {
				t.Fatalf("got %+v, %v, %v, want %s, %s, key %v", id, err, errKey, c.want, c.pds, c.key)
			}
			if c.key {
				if want, err := atcrypto.ParsePublicMultibase(testKey); err != nil || !want.Equal(key) {
					t.Fatalf("got key %v, want %v (%v)", key, want, err)
				}
			}
		})
	}
}

func TestLookupRefusesPrivateEndpoints(t *testing.T) {
	t.Parallel()
	strict, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	plc := hosttest.Serve(t, hosttest.Says(200, "application/json", document(alice.String(), pdsService("#atproto_pds", "http://127.0.0.1:80"), "")))
	c := newClient(t, Config{PLC: string(plc)})
	c.cfg.AllowPrivate = false // the guard stays open, so that the directory can be asked
	_, err = c.Lookup(t.Context(), alice)
	wantReason(t, err, outcome.ReasonRefusedAddress)
}

func TestLookupAsksNobodyForWhatIsNoDID(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	for _, did := range []string{
		"did:key:zQ3sh", "did:web:localhost%3A3000", "did:web:example.com:path", "did:web:127.0.0.1", "did:web:pds.local", "did:web:localhost",
	} {
		_, err := c.Lookup(t.Context(), syntax.DID(did))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != outcome.ReasonBadDID || e.Host != "" || !strings.Contains(e.Error(), did) {
			t.Errorf("%s: %v", did, err)
		}
	}
}

func TestLookupOfAWebDIDGoesThroughTheGuard(t *testing.T) {
	t.Parallel()
	// With one canary, which is not there, there is no telling whether our own network is.
	const service = "https://plc.example.com"
	strict, err := New(Config{Relay: service, PLC: service, Resolver: sandboxtest.Resolver(t, func(name string) []netip.Addr {
		if name == "inside.example.com" {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		return nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	for name, want := range map[string]outcome.Reason{"does-not-exist.example.com": outcome.ReasonDIDLookup, "inside.example.com": outcome.ReasonRefusedAddress} {
		_, err = strict.Lookup(t.Context(), syntax.DID("did:web:"+name))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != want || e.Host != Host("https://"+name) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestAHostIsOneHoweverAWebDIDSpellsIt(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{Resolver: sandboxtest.Resolver(t, func(string) []netip.Addr { return nil })})
	permit, err := c.Acquire(t.Context(), polite.Question{Host: "https://pds.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	_ = permit.Refused(&http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}})
	permit.Release()
	for _, name := range []string{"pds.example.com", "PDS.example.com", "pds.Example.COM"} {
		_, err := c.Lookup(t.Context(), syntax.DID("did:web:"+name))
		if p, ok := errors.AsType[*Parked](err); !ok || p.Why != polite.WhyRateLimited {
			t.Errorf("%s: got %v, want parked", name, err)
		}
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	t.Parallel()
	plc := hosttest.Serve(t, hosttest.Silent)
	c := newClient(t, Config{PLC: string(plc)})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Lookup(ctx, alice); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestLookupThatIsDrippedEnds(t *testing.T) {
	t.Parallel()
	plc := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		hosttest.Every(r, time.Millisecond, func() error { // fast enough for a body of any size
			_, _ = w.Write([]byte(repeat(" ", 20)))
			return rc.Flush()
		})
	})
	short := 200 * time.Millisecond
	c := newClient(t, Config{PLC: string(plc), Timing: Timing{Connect: short, TLS: short, Header: short, BodyIdle: short}})
	start := time.Now()
	_, err := c.Lookup(t.Context(), alice)
	wantReason(t, err, outcome.ReasonDIDLookup)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}
