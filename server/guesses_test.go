package server

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"appview/internal/api"
	"appview/store/admin"
)

// guess reserves an answer that must not be refused.
func (g *guesses) guess(t *testing.T, from string, now time.Time) time.Duration {
	t.Helper()
	wait, ok := g.reserve(addressOf(netip.MustParseAddr(from)), now)
	if !ok {
		t.Errorf("%s is refused", from)
	}
	return wait
}

func TestGuessesOfAnAddressAreSpacedOut(t *testing.T) {
	t.Parallel()
	g, now := newGuesses(), time.Now()
	for i := range guessBurst {
		if wait := g.guess(t, "192.0.2.7", now); wait != 0 {
			t.Errorf("guess %d waits %s", i+1, wait)
		}
	}
	for i := 1; i <= 3; i++ {
		if wait := g.guess(t, "192.0.2.7", now); wait != time.Duration(i)*guessEvery {
			t.Errorf("guess %d beyond the burst waits %s", i, wait)
		}
	}
	for from, slow := range map[string]bool{"192.0.2.8": false, "::ffff:192.0.2.7": true, "2001:db8::1": false} {
		if wait := g.guess(t, from, now); (wait > 0) != slow {
			t.Errorf("%s waits %s", from, wait)
		}
	}
	for i := range guessBurst { // whoever has one address of a /64 has all of them
		g.guess(t, "2001:db8::"+strconv.Itoa(i+2), now)
	}
	if wait := g.guess(t, "2001:db8:0:0:ffff::1", now); wait == 0 {
		t.Error("another address of the /64 does not wait")
	}
	if wait := g.guess(t, "2001:db8:0:1::1", now); wait != 0 {
		t.Errorf("another /64 waits %s", wait)
	}
	later := now.Add(20 * guessEvery)
	if wait := g.guess(t, "192.0.2.7", later); wait != 0 {
		t.Errorf("after a while it still waits %s", wait)
	}
}

func TestGuessesThatWouldWaitTooLongAreRefused(t *testing.T) {
	t.Parallel()
	g, now, from := newGuesses(), time.Now(), netip.MustParseAddr("192.0.2.7")
	answered := 0
	for range 1000 {
		if _, ok := g.reserve(from, now); ok {
			answered++
		}
	}
	if most := guessBurst + int(guessPatience/guessEvery); answered != most {
		t.Errorf("%d of 1000 are answered at length, want %d", answered, most)
	}
	if _, ok := g.reserve(from, now.Add(guessEvery)); !ok {
		t.Error("refused guesses count")
	}
}

// TestAddressesOfGuessersAreBounded guesses from a great many addresses: those that are not
// remembered must not be a way around.
func TestAddressesOfGuessersAreBounded(t *testing.T) {
	t.Parallel()
	g, now := newGuesses(), time.Now()
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	atOnce, refused := 0, 0
	for i := range 10 * maxGuessers {
		switch wait, ok := g.reserve(address(i), now); {
		case !ok:
			refused++
		case wait == 0:
			atOnce++
		}
	}
	if len(g.due) != maxGuessers || atOnce != maxGuessers+guessBurst || refused == 0 {
		t.Errorf("%d are remembered, %d were answered at once, %d refused", len(g.due), atOnce, refused)
	}
	if wait, ok := g.reserve(address(10*maxGuessers), now.Add(2*guessEvery)); !ok || wait != 0 || len(g.due) != 1 {
		t.Errorf("when they have made up for it, another waits %s (%t), %d are remembered", wait, ok, len(g.due))
	}
}

// refusal is the answer to a wrong key; of status 0 if there was none.
type refusal struct {
	status     int
	retryAfter string
	ends       bool // the connection
}

// guess sends a wrong key over a connection of its own.
func (b *bounded) guess(i int) (answered chan refusal) {
	b.t.Helper()
	conn := b.dial("127.0.0.1", fmt.Sprintf("GET /admin/stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hv_guess-%d\r\n\r\n", i))
	answered = make(chan refusal, 1)
	go func() {
		defer close(answered)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return
		}
		defer func() { _ = res.Body.Close() }()
		answered <- refusal{res.StatusCode, res.Header.Get("Retry-After"), res.Close}
	}()
	return answered
}

// spendBurst sends as many wrong keys as are answered at once.
func (b *bounded) spendBurst() {
	b.t.Helper()
	for i := range guessBurst {
		select {
		case res := <-b.guess(i):
			if res.status != http.StatusUnauthorized {
				b.t.Fatalf("guess %d is answered with %v", i, res)
			}
		case <-time.After(30 * time.Second):
			b.t.Fatalf("guess %d is kept back", i)
		}
	}
}

// keptBack waits until so many guesses wait for their answer.
func (b *bounded) keptBack(n int) {
	b.t.Helper()
	b.waitFor(n, func(cc *clientConn) bool { return cc.guessed.Load() })
}

// TestGoodKeyNeverWaitsForWrongOnes has as many wrong keys of one address wait as may, and
// asks from there with good ones.
func TestGoodKeyNeverWaitsForWrongOnes(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 256)
	b.server.guesses.every, b.server.guesses.patience = time.Hour, 1000*time.Hour
	stored := b.bearerOf("hv_a-good-key", nil, api.StatsRead)
	b.spendBurst()
	goodKeys := func() {
		t.Helper()
		for range 10 {
			if err := b.asks(b.dial("127.0.0.1", ""), "/admin/stats"); err != nil {
				t.Fatalf("the configured key: %v", err)
			}
			a := b.raw("tcp", b.conns.Addr().String(), "GET /admin/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: "+stored+"\r\n\r\n")
			if a.status != http.StatusOK {
				t.Fatalf("a stored key: %d %s", a.status, a.body)
			}
		}
	}
	var waiting []chan refusal
	for i := range maxGuesses {
		waiting = append(waiting, b.guess(i))
		if b.keptBack(i + 1); i == 0 {
			goodKeys()
		}
	}
	for range 3 { // beyond the bound they are answered at once, and lose their connection
		res := <-b.guess(1000)
		if res.status != http.StatusTooManyRequests || res.retryAfter == "" || !res.ends {
			t.Errorf("one guess more is answered with %v", res)
		}
	}
	goodKeys()
	for i, w := range waiting {
		select {
		case res := <-w:
			t.Errorf("guess %d did not wait: %v", i, res)
		default:
		}
	}
	b.keptBack(maxGuesses)
}

// TestGuessesGiveWayFirst fills the bound with wrong keys that wait, and one idle connection.
func TestGuessesGiveWayFirst(t *testing.T) {
	t.Parallel()
	b := newBounded(t, 16)
	b.server.guesses.every, b.server.guesses.patience = time.Hour, 1000*time.Hour
	b.spendBurst()
	idle := b.dial("127.0.0.1", "")
	b.check(b.asks(idle, "/health"))
	b.waitFor(1+guessBurst, at(phaseIdle))
	const room = 16 - 1 - guessBurst
	for i := range 60 {
		b.guess(i)
		b.until(func() bool { return b.conns.GivenWay() == uint64(max(0, i+1-room)) })
		b.keptBack(min(i+1, room))
	}
	for range room - 1 {
		if err := b.asks(b.dial("127.0.0.1", ""), "/health"); err != nil {
			t.Errorf("somebody else: %v", err)
		}
	}
	b.keptBack(1)
	if !isOpenTo(idle) {
		t.Error("an idle connection gave way to wrong keys")
	}
	b.until(func() bool { return b.server.keptBack() == 1 }) // whoever is gone is not waited for
}

// until waits for something that gives no sign of its own.
func (r *rig) until(is func() bool) {
	r.t.Helper()
	for tick, late := time.Tick(time.Millisecond), time.After(30*time.Second); !is(); {
		select {
		case <-tick:
		case <-late:
			r.t.Fatal("it never happens")
		}
	}
}

// keptBack is how many answers to wrong keys are kept back.
func (s *Server) keptBack() int {
	s.guesses.mu.Lock()
	defer s.guesses.mu.Unlock()
	return s.guesses.waiting
}

func TestGuessesTakeTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.guesses.every = 10 * time.Millisecond
	began := time.Now()
	for i := range guessBurst + 30 {
		r.do(http.MethodGet, "/admin/stats", "", "Authorization", "Bearer hv_guess-"+strconv.Itoa(i)).want(t, http.StatusUnauthorized, "not known here")
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("40 guesses took %s", took)
	}
}

// TestWhatIsNoGuess: keys that were good once, that cannot be any, or that are no keys.
func TestWhatIsNoGuess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.guesses.every = time.Hour
	revoked := r.bearerOf("hv_revoked", func(k *admin.APIKey) { k.RevokedAt = time.Now() }, api.AllPermissions)
	expired := r.bearerOf("hv_expired", func(k *admin.APIKey) { k.ExpiresAt = time.Now().Add(-time.Second) }, api.AllPermissions)
	reader := r.bearerOf("hv_reader", nil, api.BackfillRead)
	for range 3 * guessBurst {
		for _, bearer := range []string{"", "Basic YTpi", "Bearer x", "Bearer hv_a b", revoked, expired} {
			r.do(http.MethodGet, "/admin/stats", "", "Authorization", bearer).want(t, http.StatusUnauthorized, "")
		}
		r.do(http.MethodGet, "/admin/stats", "", "Authorization", reader).want(t, http.StatusForbidden, "stats:read")
		if a := r.do(http.MethodGet, "/health", "", "Authorization", "Bearer hv_unknown"); a.status != http.StatusOK {
			t.Errorf("health: %d", a.status)
		}
	}
	if len(r.server.guesses.due) != 0 {
		t.Errorf("counted: %v", r.server.guesses.due)
	}
}

// TestStopAnswersGuesses: what is kept back does not hold a shutdown up.
func TestStopAnswersGuesses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.guesses.every, r.server.guesses.patience = time.Hour, 1000*time.Hour
	run := r.run()
	ask := func() int {
		return r.raw("tcp", run.addr, "GET /admin/stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer hv_guess\r\n\r\n").status
	}
	for range guessBurst {
		ask()
	}
	last := make(chan int, 1)
	go func() { last <- ask() }()
	r.until(func() bool { return r.server.keptBack() > 0 })
	run.stop()
	run.wait(t)
	if status := <-last; status != http.StatusUnauthorized {
		t.Errorf("answered with %d", status)
	}
}
