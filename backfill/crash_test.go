package backfill_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/network"
	"appview/sandbox"
	"appview/sandbox/sandboxtest"
	"appview/store"
	"appview/store/storetest"
)

var errCrash = errors.New("injected crash")

// TestJobSurvivesACrashAroundEveryCommit runs a job once for every commit that it
// makes, with the process ending before that commit, and again after it; each
// time the next process must end with the records of the world and the counters
// of a job that nothing disturbed. It does so for repos that are listed, and for
// repos that are read in one piece. Under the race detector, which makes each run
// ten times slower, it leaves most of the commits out.
func TestJobSurvivesACrashAroundEveryCommit(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"listed", "whole"} {
		for _, when := range []string{"before", "after"} {
			t.Run(mode+" "+when, func(t *testing.T) {
				t.Parallel()
				world := sandboxtest.Start(t, sandbox.Config{
					Seed: 30, Repos: 7, Hosts: 2, Whales: 1,
					Collections: []sandbox.Collection{
						{NSID: notes, RecordBytes: 4000},
						{NSID: status, Share: 1, MinRecords: 0, MaxRecords: 3},
					},
				})
				if mode == "listed" {
					listOnly(world, nil)
				}
				sweep{world: world}.crash(t, when)
			})
		}
	}
}

// sweep is a job that is to survive crashes.
type sweep struct {
	world   *sandbox.World
	request store.Request
	begin   func()                // before each
	check   func(syntax.DID) bool // which short pages are followed all the same; nil: as always
}

// crash runs the job once for every commit that it makes.
func (w sweep) crash(t *testing.T, when string) {
	t.Helper()
	stride := int64(1)
	if underRace {
		stride = 4
	}
	if w.begin == nil {
		w.begin = func() {}
	}
	w.begin()
	want := w.run(t, filepath.Join(t.TempDir(), "appview.db"), store.Hooks{})
	if want.Status != store.StatusCompleted || want.Tally.Records < 100 {
		t.Fatalf("undisturbed job: %+v", want)
	}
	for n := int64(1); ; n += stride {
		path, seen := filepath.Join(t.TempDir(), "appview.db"), atomic.Int64{}
		hook := func() error {
			if seen.Add(1) == n {
				return errCrash
			}
			return nil
		}
		hooks := store.Hooks{BeforeCommit: hook}
		if when == "after" {
			hooks = store.Hooks{AfterCommit: hook}
		}
		w.begin()
		w.run(t, path, hooks)
		if seen.Load() < n {
			if n < 8 {
				t.Fatalf("only %d commits were hit: the sweep tests next to nothing", n-1)
			}
			return
		}
		got := w.run(t, path, store.Hooks{})
		if got.Status != store.StatusCompleted {
			t.Fatalf("crash %s commit %d: job is %s: %s", when, n, got.Status, got.Error)
		}
		wantCounters(t, got, want)
		r := &rig{t: t, world: w.world, store: storetest.OpenPath(t, path)}
		r.wantTruth("")
		if t.Failed() {
			t.Fatalf("after a crash %s commit %d", when, n)
		}
	}
}

// run opens the store at path, creates the job if there is none, and works until
// the job is done or the store has failed.
func (w sweep) run(t *testing.T, path string, hooks store.Hooks) store.Job {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s, err := store.Open(store.Config{Path: path, FlushEvery: 5 * time.Millisecond, Hooks: hooks, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	net := newNetwork(t, w.world, network.Config{})
	defer net.Close()
	b, err := backfill.New(backfill.Config{Store: s, Network: net, Retry: 20 * time.Millisecond, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if w.check != nil {
		b.Check(w.check)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	jobs, err := s.Jobs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) == 0 {
		job, err := b.Create(ctx, w.request)
		if errors.Is(err, errCrash) {
			return job
		}
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, job)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, errCrash) {
			t.Errorf("run: %v", err)
		}
	}()
	for tick := time.Tick(2 * time.Millisecond); ; {
		job, err := s.Job(ctx, jobs[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.Failed():
			return job
		case <-ctx.Done():
			t.Fatalf("job is not done: %+v", job)
		case <-tick:
		}
		if job.Status.Final() {
			return job
		}
	}
}
