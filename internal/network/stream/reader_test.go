package stream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/coder/websocket"

	"appview/internal/network"
	"appview/internal/network/stream"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	sources "appview/internal/sandbox/stream"
)

var errEnough = errors.New("enough")

func sockets(t *testing.T, private bool) *http.Client {
	t.Helper()
	c, err := network.New(network.Config{AllowPrivate: private})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.Sockets()
}

func reader(t *testing.T, cfg stream.Config) *stream.Reader {
	t.Helper()
	if cfg.HTTP == nil {
		cfg.HTTP = sockets(t, true)
	}
	r, err := stream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start makes a small world with two Jetstreams.
func start(t *testing.T, seed int64, cfg sources.Config) (*sandbox.World, *sources.Streams) {
	t.Helper()
	cfg.Jetstreams = []sources.Jetstream{{}, {Legacy: true, Skew: -time.Hour}}
	return sandboxtest.StartStreams(t, sandbox.Config{Seed: seed, Hosts: 2, Repos: 6, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 5, MaxRecords: 20},
	}}, cfg)
}

func mutate(t *testing.T, w *sandbox.World, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		if _, err := w.Mutate(rng); err != nil {
			t.Fatal(err)
		}
	}
}

// take reads events until hand has had enough.
func take(t *testing.T, r *stream.Reader, from stream.Cursor, hand func(*stream.Event) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Read(ctx, from, hand); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
}

// some reads n events of any kind.
func some(t *testing.T, r *stream.Reader, from stream.Cursor, n int) (events []stream.Event) {
	t.Helper()
	take(t, r, from, func(e *stream.Event) error {
		if events = append(events, *e); len(events) == n {
			return errEnough
		}
		return nil
	})
	return events
}

func TestEveryWireTellsTheTruth(t *testing.T) {
	t.Parallel()
	w, s := start(t, 40, sources.Config{})
	before := w.Truth()
	began := time.Now()
	mutate(t, w, 150)
	last, _ := s.Relay().Position()
	for name, c := range map[string]struct {
		cfg  stream.Config
		from stream.Cursor
	}{
		"v2":              {stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV2}, stream.Cursor{Seq: 1}},
		"v1":              {stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV1}, stream.Cursor{Time: began}},
		"v1 of a legacy":  {stream.Config{URL: s.Jetstream(1).URL(), Wire: stream.WireV1}, stream.Cursor{Time: began.Add(-time.Hour)}},
		"subscribe repos": {stream.Config{URL: s.Relay().URL(), Wire: stream.WireRepos}, stream.Cursor{Oldest: true}},
	} {
		held := map[string]string{}
		for uri, r := range before {
			held[uri] = r.CID
		}
		n := int64(0)
		take(t, reader(t, c.cfg), c.from, func(e *stream.Event) error {
			if e.Kind != stream.KindCommit || len(e.Ops) != 1 || e.Time.Before(began.Add(-2*time.Hour)) {
				t.Errorf("%s: %+v", name, e)
				return errEnough
			}
			o := e.Ops[0]
			uri := "at://" + e.DID.String() + "/" + o.Collection.String() + "/" + o.RKey.String()
			if delete(held, uri); o.Action != stream.ActionDelete {
				held[uri] = o.CID.String()
				if (o.Block == nil) == (o.JSON == nil) {
					t.Errorf("%s: %s has block %d and json %d", name, uri, len(o.Block), len(o.JSON))
				}
			}
			if n++; n == last {
				return errEnough
			}
			return nil
		})
		truth := w.Truth()
		for uri, r := range truth {
			if held[uri] != r.CID {
				t.Errorf("%s: %s is %q instead of %s", name, uri, held[uri], r.CID)
			}
		}
		if len(held) != len(truth) {
			t.Errorf("%s: %d records instead of %d", name, len(held), len(truth))
		}
	}
}

func TestAccountsIdentitiesAndSyncsOnEveryWire(t *testing.T) {
	t.Parallel()
	w, s := start(t, 41, sources.Config{})
	one := w.Repos()[0]
	for _, step := range []func() error{
		func() error { return w.TakeDown(one.DID) },
		func() error { return w.Activate(one.DID) },
		func() error { return w.Tombstone(one.DID) },
		func() error { _, err := w.Resync(one.DID, nil); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for wire, source := range map[stream.Wire]*sources.Source{
		stream.WireV2: s.Jetstream(0), stream.WireV1: s.Jetstream(0), stream.WireRepos: s.Host(one.Host),
	} {
		r := reader(t, stream.Config{URL: source.URL(), Wire: wire})
		n := 4
		if wire == stream.WireV1 {
			n = 3 // it has no syncs
		}
		events := some(t, r, stream.Cursor{Seq: 1}, n)
		if e := events[0]; e.Kind != stream.KindAccount || e.Active || e.Status != "takendown" || e.DID != one.DID || e.Seq != 1 {
			t.Errorf("%s: %+v", wire, e)
		}
		if e := events[1]; e.Kind != stream.KindAccount || !e.Active || e.Status != "" {
			t.Errorf("%s: %+v", wire, e)
		}
		if e := events[2]; e.Kind != stream.KindIdentity || e.Handle != one.Handle {
			t.Errorf("%s: %+v", wire, e)
		}
		if n == 4 && (events[3].Kind != stream.KindSync || events[3].Rev <= one.Rev) {
			t.Errorf("%s: %+v", wire, events[3])
		}
	}
}

func TestWhatASourceRefusesIsToldApart(t *testing.T) {
	t.Parallel()
	w, s := start(t, 42, sources.Config{Items: 5})
	mutate(t, w, 10)
	v2 := reader(t, stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV2})
	repos := reader(t, stream.Config{URL: s.Relay().URL(), Wire: stream.WireRepos})
	refused := func(r *stream.Reader, from stream.Cursor) *stream.Refused {
		t.Helper()
		err := r.Read(t.Context(), from, func(*stream.Event) error { return errEnough })
		var refused *stream.Refused
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if errors.Is(err, stream.ErrCursorTooOld) != (refused.Name == "CursorTooOld") {
			t.Errorf("%v is not told apart", err)
		}
		return refused
	}
	if e := refused(v2, stream.Cursor{Seq: 1}); e.Name != "CursorTooOld" || e.Status != http.StatusBadRequest {
		t.Errorf("too old: %+v", e)
	}
	if e := refused(repos, stream.Cursor{Seq: 1000}); e.Name != "FutureCursor" || e.Status != 0 {
		t.Errorf("in the future: %+v", e)
	}
	if e := some(t, repos, stream.Cursor{Seq: 1}, 1)[0]; e.Kind != stream.KindInfo || e.Name != "OutdatedCursor" {
		t.Errorf("outdated: %+v", e)
	}
	s.Relay().Refuse(true)
	if e := refused(repos, stream.Cursor{}); e.Status != http.StatusServiceUnavailable {
		t.Errorf("unavailable: %+v", e)
	}
	elsewhere := httptest.NewServer(http.RedirectHandler(strings.Replace(s.Jetstream(0).URL(), "ws", "http", 1), http.StatusFound))
	t.Cleanup(elsewhere.Close)
	if e := refused(reader(t, stream.Config{URL: "ws" + elsewhere.URL[4:], Wire: stream.WireV2}), stream.Cursor{}); e.Status != http.StatusFound {
		t.Errorf("a redirect is followed: %+v", e)
	}
}

func TestBadFramesEndNothing(t *testing.T) {
	t.Parallel()
	w, s := start(t, 43, sources.Config{})
	frames := map[stream.Wire][][]byte{
		stream.WireV2: {
			make([]byte, 9<<20), []byte("{"), []byte("[]"), []byte(`{"$type":"message","payload":{}}`), []byte(strings.Repeat("[", 70_000)),
			[]byte(`{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#commit","seq":"1"}}`),
		},
		stream.WireRepos: {
			make([]byte, 6<<20),
			{},
			{0xa0},
			[]byte("\xa2\x61t\x67#commit\x62op\x01"), []byte("\xa2\x61t\x67#commit\x62op\x01\xbf"),
			[]byte("\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
		},
	}
	for wire, source := range map[stream.Wire]*sources.Source{stream.WireV2: s.Jetstream(0), stream.WireRepos: s.Relay()} {
		r, sent, badOnes := reader(t, stream.Config{URL: source.URL(), Wire: wire}), false, 0
		mutate(t, w, 1)
		take(t, r, stream.Cursor{Seq: 1}, func(e *stream.Event) error {
			switch e.Kind {
			case stream.KindBad:
				badOnes++
				if (e.Reason == stream.ReasonTooLarge) != (badOnes == 1) || e.Err == nil {
					t.Errorf("%s: %s %v", wire, e.Reason, e.Err)
				}
			case stream.KindCommit:
				if badOnes > 0 {
					return errEnough
				}
			case stream.KindUnknown: // skipped
			default:
				t.Errorf("%s: %+v", wire, e)
			}
			if !sent {
				sent = true
				for _, frame := range frames[wire] {
					source.Raw(frame)
				}
				mutate(t, w, 1)
			}
			return nil
		})
		if badOnes < 4 {
			t.Errorf("%s: %d bad frames", wire, badOnes)
		}
	}
}

func TestCutConnectionIsAnError(t *testing.T) {
	t.Parallel()
	w, s := start(t, 44, sources.Config{})
	mutate(t, w, 3)
	r := reader(t, stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV2})
	s.Jetstream(0).Cut(1)
	err := r.Read(t.Context(), stream.Cursor{Seq: 1}, func(e *stream.Event) error {
		t.Errorf("half a frame: %+v", e)
		return nil
	})
	if err == nil || s.Jetstream(0).Faults("cut") != 1 {
		t.Errorf("cut: %v", err)
	}
	if e := some(t, r, stream.Cursor{Seq: 2}, 1)[0]; e.Seq != 2 {
		t.Errorf("it reads again from %d", e.Seq)
	}
}

func TestSilentSourceIsDeadAndAQuietOneIsNot(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Error("it offers compression")
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		<-gone // it reads nothing, and so answers no ping
		_ = conn.CloseNow()
	}))
	t.Cleanup(deaf.Close)
	silence := 300 * time.Millisecond
	cfg := stream.Config{URL: "ws" + deaf.URL[4:], Wire: stream.WireV2, Silence: silence, Ping: silence / 10}
	if err := reader(t, cfg).Read(t.Context(), stream.Cursor{}, func(*stream.Event) error { return nil }); !errors.Is(err, stream.ErrSilent) {
		t.Errorf("deaf: %v", err)
	}
	close(gone)

	_, s := start(t, 45, sources.Config{})
	cfg.URL = s.Jetstream(0).URL()
	ctx, cancel := context.WithTimeout(t.Context(), 4*silence)
	defer cancel()
	if err := reader(t, cfg).Read(ctx, stream.Cursor{}, func(*stream.Event) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("quiet, but alive: %v", err)
	}
}

func TestSlowHandIsNotSilence(t *testing.T) {
	t.Parallel()
	w, s := start(t, 46, sources.Config{})
	mutate(t, w, 2)
	silence := 100 * time.Millisecond
	r, n := reader(t, stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV2, Silence: silence, Ping: silence / 10}), 0
	take(t, r, stream.Cursor{Seq: 1}, func(*stream.Event) error {
		if n++; n == 2 {
			return errEnough
		}
		timer := time.NewTimer(4 * silence)
		defer timer.Stop()
		<-timer.C
		return nil
	})
}

func TestSocketsKeepTheGuard(t *testing.T) {
	t.Parallel()
	_, s := start(t, 47, sources.Config{})
	r := reader(t, stream.Config{URL: s.Jetstream(0).URL(), Wire: stream.WireV2, HTTP: sockets(t, false)})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // it would be a quiet source
	defer cancel()
	err := r.Read(ctx, stream.Cursor{}, func(*stream.Event) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "not public") || s.Jetstream(0).Subscribers() != 0 {
		t.Errorf("a private address is dialed: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	client := &http.Client{}
	for name, cfg := range map[string]stream.Config{
		"no client":   {URL: "wss://a.example", Wire: stream.WireV2},
		"http":        {URL: "https://a.example", Wire: stream.WireV2, HTTP: client},
		"user":        {URL: "wss://me@a.example", Wire: stream.WireV2, HTTP: client},
		"query":       {URL: "wss://a.example?x=1", Wire: stream.WireV2, HTTP: client},
		"no wire":     {URL: "wss://a.example", HTTP: client},
		"collections": {URL: "wss://a.example", Wire: stream.WireV2, HTTP: client, Collections: make([]syntax.NSID, 101)},
		"filter":      {URL: "wss://a.example", Wire: stream.WireRepos, HTTP: client, Collections: make([]syntax.NSID, 1)},
	} {
		if _, err := stream.New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
