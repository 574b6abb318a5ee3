package network

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/network/repo/repotest"
)

func TestPagesCountUntilTheyAreClosed(t *testing.T) {
	t.Parallel()
	host := hosttest.Serve(t, hosttest.Says(200, "application/json", `{"records":[],"pad":"`+repeat("x", 3<<20)+`"}`))
	c := newClient(t, Config{})
	p, err := c.ListRecords(t.Context(), host, alice, status, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Held() == 0 {
		t.Fatal("an open page counts for nothing")
	}
	p.Close()
	p.Close()
	if c.Held() != 0 {
		t.Error("a closed page still counts")
	}
}

func TestDocumentOfAThousandServices(t *testing.T) {
	t.Parallel()
	did := alice.String()
	var services []string
	for i := range 1000 {
		services = append(services, pdsService(fmt.Sprintf("#s%d", i), fmt.Sprintf("https://s%d.example.com", i)))
	}
	services = append(services, pdsService("#atproto_pds", "https://pds.example.com"), pdsService("#atproto_pds", "https://second.example.com"))
	plc := hosttest.Serve(t, hosttest.Says(200, "application/json", document(did, strings.Join(services, ","), "")))
	id, err := newClient(t, Config{PLC: string(plc)}).Lookup(t.Context(), alice)
	if err != nil || id.PDS != "https://pds.example.com" {
		t.Errorf("got %+v, %v", id, err)
	}
}

// TestBombsAreRefusedForHowTheyInflate has bombs that would stay under every
// limit on length, and repeat what is sound.
func TestBombsAreRefusedForHowTheyInflate(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	for name, c := range map[string]struct {
		body string
		car  bool
	}{
		"page":             {hosttest.Squeezed(t, repeat(" ", 1<<20), 30), false},
		"car of blocks":    {hosttest.Squeezed(t, repotest.Header(repotest.IDOf("x"))+repeat(repotest.Frame(repotest.IDOf("x")+"x"), 200_000), 1), true},
		"car of one block": {hosttest.Squeezed(t, repotest.Header(repotest.IDOf("x"))+repotest.Frame(repotest.IDOf(repeat("x", 20<<20))+repeat("x", 20<<20)), 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Serve(t, hosttest.Says(200, "application/json", c.body, "Content-Encoding", "gzip"))
			if c.car {
				host = hosttest.Serve(t, hosttest.Says(200, "application/vnd.ipld.car", c.body, "Content-Encoding", "gzip"))
			}
			client := newClient(t, Config{})
			var err error
			if c.car {
				_, err = client.Repo(t.Context(), host, identOf(m))
			} else {
				_, err = page(t, client, host)
			}
			wantReason(t, err, outcome.ReasonTooLarge)
			if !strings.Contains(err.Error(), "inflates") {
				t.Errorf("got %v", err)
			}
		})
	}
	// What inflates well and is no bomb comes through.
	honest := `{"records":[` + strings.TrimSuffix(repeat(`{"uri":"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/xyz.statusphere.status/3kgk4qs6aa22a","cid":"bafyrei","value":{"status":"a"}},`, 900), ",") + `]}`
	host := hosttest.Serve(t, hosttest.Says(200, "application/json", hosttest.Squeezed(t, honest, 1), "Content-Encoding", "gzip"))
	if p, err := page(t, newClient(t, Config{}), host); err != nil || len(p.Records) != 900 {
		t.Errorf("%d records, %v", len(p.Records), err)
	}
}

// TestWhoHoldsMemoryThatOthersWaitForMustHurry has a host send most of a large
// body at once and drip the rest, which would keep everybody else's large bodies
// waiting for hours.
func TestWhoHoldsMemoryThatOthersWaitForMustHurry(t *testing.T) {
	t.Parallel()
	const held = 2 << 20
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"records":[],"pad":"`+repeat("x", held)+`"`)
		hosttest.Drip(w, r)
	})
	c := newClient(t, Config{Timing: Timing{BodyIdle: 500 * time.Millisecond}})
	c.bodies = polite.NewBudget(maxPageBody+4<<20, maxPageBody) // what one of them takes, beside the reserve
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 3 { // one holds it, one the reserve, and one waits
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			p, err := c.ListRecords(ctx, host, syntax.DID(fmt.Sprintf("did:plc:%024d", i)), status, "")
			p.Close()
			if reasonOf(err) != string(outcome.ReasonTimeout) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Relay: "http://127.0.0.1:1"}, {PLC: "https://plc.directory/path"}, {HostRPS: -1}, {PerHost: -1}, {Relay: "nonsense", AllowPrivate: true},
	} {
		if c, err := New(cfg); err == nil {
			c.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
}
