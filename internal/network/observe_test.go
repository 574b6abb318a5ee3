package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
)

func TestExchangesAreMeasured(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []Exchange
	note := func(e Exchange) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, e)
	}
	took := func() []Exchange {
		mu.Lock()
		defer mu.Unlock()
		s := seen
		seen = nil
		return s
	}
	good := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	broken := hosttest.Serve(t, hosttest.Says(500, "application/json", `{"error":"x"}`))
	dead := hosttest.Serve(t, hosttest.HangUp)
	there := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	moved := hosttest.Serve(t, hosttest.Says(302, "text/plain", "", "Location", string(there)+"/"))
	c := newClient(t, Config{Observe: note, Relay: string(good), PLC: string(broken)})
	for host, want := range map[Host][]Exchange{
		good:   {{Kind: KindRelay, Status: 200}},
		broken: {{Kind: KindPLC, Status: 500}},
		dead:   {{Kind: KindPDS}},
		moved:  {{Kind: KindPDS, Status: 302}, {Kind: KindPDS, Status: 200}},
	} {
		_, _ = page(t, c, host)
		got := took()
		if len(got) != len(want) {
			t.Errorf("%s: %+v, want %+v", host, got, want)
			continue
		}
		for i, e := range got {
			if e.Kind != want[i].Kind || e.Status != want[i].Status || e.Took <= 0 {
				t.Errorf("%s: %+v, want %+v", host, e, want[i])
			}
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ListRecords(gone, good, alice, status, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := took(); len(got) != 0 {
		t.Errorf("what was never sent was measured: %+v", got)
	}
}

func TestCensusCountsHosts(t *testing.T) {
	t.Parallel()
	good := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[]}`))
	busy := hosttest.Serve(t, hosttest.Says(429, "application/json", `{}`, "Retry-After", "600"))
	dead := hosttest.Serve(t, hosttest.HangUp)
	c := newClient(t, Config{Relay: string(good), Timing: Timing{Probe: time.Hour, MaxProbe: time.Hour}})
	if got := c.Census(); got[KindPDS] != (Census{}) || len(got) != len(Kinds()) {
		t.Errorf("at first: %+v", got)
	}
	for _, host := range []Host{good, busy} {
		_, _ = page(t, c, host)
	}
	for i := range breakerTrips {
		did := syntax.DID(fmt.Sprintf("did:plc:aaaaaaaaaaaaaaaaaaaaaaa%c", 'a'+i))
		if _, err := c.ListRecords(t.Context(), dead, did, status, ""); err == nil {
			t.Error("a dead host answers")
		}
	}
	got := c.Census()
	if got[KindRelay] != (Census{Known: 1}) || got[KindPLC] != (Census{}) || got[KindPDS] != (Census{Known: 2, Parked: 1, Down: 1}) {
		t.Errorf("got %+v", got)
	}
}
