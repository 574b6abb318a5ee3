package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/index"
)

func TestDeletedRecordsAreServedNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fill := func() {
		for _, did := range []syntax.DID{alice, bob, carol} {
			r.settle(did, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 5), status: texts(t, 3)})
		}
	}
	fill()
	for _, c := range []struct {
		query         string
		deleted, left int
	}{
		{"?collection=com.example.note&did=" + string(alice), 5, 19},
		{"?did=" + string(alice), 3, 16},
		{"?collection=xyz.statusphere.status", 6, 10},
		{"?collection=a.b.unknown", 0, 10},
		{"?did=did:web:unknown.example", 0, 10},
	} {
		a := r.do(http.MethodDelete, "/admin/records"+c.query, "")
		if want := fmt.Sprintf(`{"deleted":%d}`+"\n", c.deleted); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %s, want %s", c.query, a.status, a.body, want)
		}
		if got := r.export(""); len(got) != c.left {
			t.Errorf("%s leaves %d records, want %d", c.query, len(got), c.left)
		}
	}
	for query, text := range map[string]string{
		"": "name a collection, a did, or both", "?colection=com.example.note": "unknown parameter",
		"?collection=": "collection is empty", "?collection=note": "no valid NSID", "?did=x": "no valid DID",
	} {
		r.do(http.MethodDelete, "/admin/records"+query, "").want(t, 400, text)
	}
	if got := r.export(""); len(got) != 10 {
		t.Errorf("a refused deletion left %d records", len(got))
	}
	fill() // a job brings back what the repos still hold
	if got := r.export(""); len(got) != 24 {
		t.Errorf("a job afterwards restored %d records", len(got))
	}
}

func TestDeletionDoesNotHoldUpAShutdown(t *testing.T) {
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
	commits.Store(2) // that it was asked for is written, and its first step hangs
	answered := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+run.addr+"/admin/records?collection=com.example.note", nil)
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
	run.wait(t) // although nothing has been deleted yet
	r.check(<-answered)
	close(release)
	// The next start: what was asked for is done.
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
