package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// notes is where a test keeps what is remembered of hosts.
type notes struct {
	mu   sync.Mutex
	rows map[string][]byte
	fail error
	n    int // times that something was handed over
}

func (n *notes) save(_ context.Context, rows map[string][]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	n.n++
	for host, row := range rows {
		if row == nil {
			delete(n.rows, host)
			continue
		}
		n.rows[host] = row
	}
	return nil
}

func (n *notes) all() map[string][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.rows)
}

// aFewDIDs are different repos, enough to open a breaker.
func aFewDIDs() (dids []syntax.DID) {
	for i := range breakerTrips {
		dids = append(dids, syntax.DID(fmt.Sprintf("did:plc:%024d", i)))
	}
	return dids
}

// TestPausesOutliveTheProcess has hosts ask to be left alone in every way there is, and
// the next process be told.
func TestPausesOutliveTheProcess(t *testing.T) {
	t.Parallel()
	soon := fmt.Sprint(300)
	records := func(c *Client, h Host) error { return only(c.ListRecords(t.Context(), h, alice, status, "")) }
	for name, k := range map[string]struct {
		answer http.HandlerFunc
		ask    func(c *Client, h Host) error
		least  time.Duration // that is left
		most   time.Duration
		cfg    func(cfg *Config, h Host)
	}{
		"429 with Retry-After": {says(429, "text/plain", "", "Retry-After", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"503 with Retry-After": {says(503, "text/plain", "", "Retry-After", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"429 without a word":   {says(429, "text/html", "<html>"), records, 29 * time.Second, time.Minute, nil},
		"429 for two days":     {says(429, "text/plain", "", "Retry-After", "172800"), records, 59 * time.Minute, time.Hour, nil},
		"a spent quota":        {says(200, "application/json", `{"records":[]}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), records, 290 * time.Second, 300 * time.Second, nil},
		"a spent quota of getRepo": {says(404, "application/json", `{}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), func(c *Client, h Host) error {
			return only(c.call429(t.Context(), h))
		}, 290 * time.Second, 300 * time.Second, nil},
		"an open breaker": {says(502, "text/html", "<html>"), func(c *Client, h Host) (err error) {
			for _, did := range append(aFewDIDs(), alice) {
				err = only(c.ListRecords(t.Context(), h, did, status, ""))
			}
			return err
		}, 5 * time.Second, 10 * time.Second, nil},
		"the relay, with 429": {says(429, "text/plain", "", "Retry-After", soon), func(c *Client, _ Host) error {
			return only(c.Repos(t.Context(), ""))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.Relay = string(h) }},
		"the relay's spent quota": {says(200, "application/json", `{"repos":[]}`, "RateLimit-Limit", "3000", "RateLimit-Remaining", "0", "RateLimit-Reset", soon), func(c *Client, _ Host) error {
			return only(c.Repos(t.Context(), ""))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.Relay = string(h) }},
		"the directory, with 429": {says(429, "text/plain", "", "Retry-After", soon), func(c *Client, _ Host) error {
			return only(c.Lookup(t.Context(), alice))
		}, 290 * time.Second, 300 * time.Second, func(cfg *Config, h Host) { cfg.PLC = string(h) }},
		"the directory, set aside": {says(200, "text/plain", ""), func(c *Client, _ Host) error {
			c.SetAside(c.PLC(), 2*time.Minute, "it is away")
			return only(c.Lookup(t.Context(), alice))
		}, 110 * time.Second, 120 * time.Second, func(cfg *Config, h Host) { cfg.PLC = string(h) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			h := serve(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); k.answer(w, r) })
			cfg := Config{}
			if k.cfg != nil {
				k.cfg(&cfg, h)
			}
			for name, moved := range map[string]time.Duration{"": 0, "clock set back": -24 * time.Hour, "after two seconds": 2 * time.Second} {
				first := newClient(t, cfg)
				n := &notes{rows: map[string][]byte{}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); first.KeepPauses(ctx, n.save) }()
				_ = k.ask(first, h)
				awaitThat(t, "something is remembered within a second", time.Second, func() bool { return len(n.all()) == 1 })
				_ = only(first.ListRecords(t.Context(), h, alice, status, "")) // whatever else goes on
				cancel()
				<-ended
				later := cfg
				later.Now = func() time.Time { return time.Now().Add(moved) }
				second := newClient(t, later)
				second.Resume(n.all())
				asked.Store(0)
				err := k.ask(second, h)
				p, ok := errors.AsType[*Parked](err)
				if !ok || asked.Load() != 0 {
					t.Errorf("%s: the next process asks %d times: %v", name, asked.Load(), err)
					continue
				}
				if left := p.Until.Sub(second.cfg.Now()); left > k.most || left < k.least-2*time.Second {
					t.Errorf("%s: it waits for %s, not %s to %s", name, left, k.least, k.most)
				}
				if p.Answer == "" {
					t.Errorf("%s: nothing says why: %+v", name, p)
				}
			}
			later := cfg
			later.Now = func() time.Time { return time.Now().Add(time.Hour) }
			n := &notes{rows: map[string][]byte{}}
			first := newClient(t, cfg)
			_ = k.ask(first, h)
			if err := first.SavePauses(t.Context(), n.save); err != nil {
				t.Fatal(err)
			}
			second := newClient(t, later)
			second.Resume(n.all())
			if _, parked := second.ParkedUntil(h); parked || second.DirectoryParked() && k.cfg != nil {
				t.Error("it waits when it is over")
			}
			if err := second.SavePauses(t.Context(), n.save); err != nil || len(n.all()) != 0 {
				t.Errorf("%d rows of what is over, %v", len(n.all()), err)
			}
		})
	}
}

// only is the error of a call.
func only[T any](_ T, err error) error { return err }

// call429 asks on the lane of getRepo.
func (c *Client) call429(ctx context.Context, h Host) (*answer, error) {
	return c.fetch(ctx, call{op: "com.atproto.sync.getRepo", host: h, target: "/xrpc/x", limit: 1 << 10, subject: "x", lane: laneRepo})
}

func awaitThat(t *testing.T, what string, within time.Duration, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(within); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestHostThatAnswersAgainIsNotRemembered has a breaker close, and our own network be
// what had failed.
func TestHostThatAnswersAgainIsNotRemembered(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *Client, g *gate){
		"it answers":    func(_ *Client, g *gate) { passage{g: g, way: wayOrdinary, op: "x", probe: true}.alive() },
		"our own fault": func(c *Client, _ *gate) { c.networkChanged(context.Background(), true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, n := newClient(t, Config{}), &notes{rows: map[string][]byte{}}
			g := c.gates.take("https://pds.example", time.Now())
			for _, did := range aFewDIDs() {
				unanswered(g, time.Now(), did.String())
			}
			if err := c.SavePauses(t.Context(), n.save); err != nil || len(n.all()) != 1 {
				t.Fatalf("%d rows, %v", len(n.all()), err)
			}
			end(c, g)
			n.fail = errors.New("no room")
			if err := c.SavePauses(t.Context(), n.save); err == nil {
				t.Fatal("a failure is not told")
			}
			n.fail = nil
			if err := c.SavePauses(t.Context(), n.save); err != nil || len(n.all()) != 0 {
				t.Errorf("%d rows, %v", len(n.all()), err)
			}
			was := n.n
			if err := c.SavePauses(t.Context(), n.save); err != nil || n.n != was {
				t.Errorf("it is handed over again: %v", err)
			}
		})
	}
}

// TestRememberedPausesAreBounded has more hosts ask for silence than are remembered.
func TestRememberedPausesAreBounded(t *testing.T) {
	t.Parallel()
	c, n := newClient(t, Config{}), &notes{rows: map[string][]byte{}}
	for i := range maxPauses + 10 {
		g := c.gates.take(Host(fmt.Sprintf("https://x%d.example", i)), time.Now())
		_ = g.refused(time.Now(), maxPause, time.Hour)
		c.gates.give(g, time.Now())
	}
	if err := c.SavePauses(t.Context(), n.save); err != nil || len(n.all()) != maxPauses {
		t.Fatalf("%d rows, %v", len(n.all()), err)
	}
	g := c.gates.take(c.relay, time.Now())
	_ = g.refused(time.Now(), time.Minute, time.Hour)
	if err := c.SavePauses(t.Context(), n.save); err != nil || n.all()[string(c.relay)] == nil {
		t.Errorf("the relay is forgotten for others: %v", err)
	}
	// What is no row of ours has nobody wait.
	second := newClient(t, Config{})
	second.Resume(map[string][]byte{"https://a.example": []byte("{"), "": []byte("{}"), "https://b.example": []byte(`{"noted":"2026-01-01T00:00:00Z","quotas":[{"lane":7,"left":1}],"down":[{"way":-1}]}`)})
	if n := len(second.gates.all); n != 0 {
		t.Errorf("%d hosts are to be left alone", n)
	}
}

// TestClockThatIsSetEndsNoPause sets the wall clock while the process runs, and ends it
// then: what is left is what was left by the running clock.
func TestClockThatIsSetEndsNoPause(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		c, n := newClient(t, Config{}), &notes{rows: map[string][]byte{}}
		var moved atomic.Int64
		c.jumps.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(moved.Load())) }
		c.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(moved.Load())) } // as after the jump
		g := c.gates.take("https://pds.example", time.Now())
		_ = g.refused(time.Now(), 5*time.Minute, time.Hour)
		if err := c.SavePauses(t.Context(), n.save); err != nil {
			t.Fatal(err)
		}
		moved.Store(int64(by))
		g.mu.Lock() // by the running clock nothing has passed
		g.until = g.until.Add(by)
		g.mu.Unlock()
		if err := c.SavePauses(t.Context(), n.save); err != nil {
			t.Fatal(err)
		}
		second := newClient(t, Config{Now: func() time.Time { return time.Now().Add(by) }})
		second.Resume(n.all())
		if until, parked := second.ParkedUntil("https://pds.example"); !parked || until.Sub(second.cfg.Now()) < 4*time.Minute {
			t.Errorf("clock set by %s: parked %t until %s", by, parked, until)
		}
	}
}
