package network

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
)

func TestCollectionCountsReadsWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	const note = syntax.NSID("com.example.note")
	relay := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/listCollections" || !slices.Equal(r.URL.Query()["c"], []string{status.String(), note.String()}) {
			t.Errorf("asked %s", r.URL)
		}
		hosttest.Says(200, "application/json", `{"cursor":"","collections":{"`+status.String()+`":1234,"no nsid":7,"com.example.note":"many","com.example.large":99999999999999999}}`)(w, r)
	})
	got, err := newClient(t, Config{Relay: string(relay)}).CollectionCounts(t.Context(), []syntax.NSID{status, note})
	if want := map[syntax.NSID]int64{status: 1234, note: 0, "com.example.large": maxCounted}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestBadEstimates(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing": `{}`, "a list": `{"collections":[]}`, "two": `{"collections":{},"collections":{}}`, "cut": `{"collections":{"a.b.c":1`, "no object": `7`,
	} {
		relay := hosttest.Serve(t, hosttest.Says(200, "application/json", body))
		_, err := newClient(t, Config{Relay: string(relay)}).CollectionCounts(t.Context(), []syntax.NSID{status})
		if reasonOf(err) != string(outcome.ReasonBadAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, body := range map[string]string{
		"nothing": `{}`, "an object": `{"hosts":{}}`, "two": `{"hosts":[],"hosts":[]}`, "too many": `{"hosts":[` + repeat(`{},`, maxRelayHosts) + `{}]}`,
		"cursor is a number": `{"hosts":[],"cursor":7}`,
	} {
		relay := hosttest.Serve(t, hosttest.Says(200, "application/json", body))
		_, err := newClient(t, Config{Relay: string(relay)}).Hosts(t.Context(), "")
		if reasonOf(err) != string(outcome.ReasonBadAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestHostsReadsPages(t *testing.T) {
	t.Parallel()
	relay := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/xrpc/com.atproto.sync.listHosts" || q.Get("limit") != "1000" || q.Get("cursor") != "a+/=" {
			t.Errorf("asked %s", r.URL)
		}
		hosttest.Says(200, "application/json", `{"cursor":"b","hosts":[
			{"hostname":"PDS.example.com","accountCount":12,"seq":1,"status":"active"},
			{"hostname":"127.0.0.1:2583","accountCount":3},
			{"hostname":"banned.example.com","accountCount":5,"status":"banned"},
			{"hostname":"empty.example.com","accountCount":0},
			{"hostname":"bad.example.com/path","accountCount":1},
			{"hostname":7}, 8, {}]}`)(w, r)
	})
	p, err := newClient(t, Config{Relay: string(relay)}).Hosts(t.Context(), "a+/=")
	want := []HostAccounts{{"https://pds.example.com", 12}, {"http://127.0.0.1:2583", 3}}
	if err != nil || !slices.Equal(p.Hosts, want) || p.Cursor != "b" {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestRateIsWhatRefusalsHaveLeft(t *testing.T) {
	t.Parallel()
	host := hosttest.Serve(t, hosttest.Says(429, "application/json", `{"error":"RateLimitExceeded"}`))
	c := newClient(t, Config{Relay: "https://relay.example", PLC: "https://plc.example", HostRPS: 6, RelayRPS: 3, PLCRPS: 50})
	for asked, want := range map[Host]float64{host: 6, "https://relay.example": 3, "https://plc.example": 50} {
		if got := c.Rate(asked); got != want {
			t.Errorf("%s: %v a second, want %v", asked, got, want)
		}
	}
	if _, err := c.RepoStatus(t.Context(), host, "did:plc:abc"); err == nil {
		t.Fatal("it was not refused")
	}
	if got := c.Rate(host); got != 3 {
		t.Errorf("after a refusal: %v a second, want 3", got)
	}
}
