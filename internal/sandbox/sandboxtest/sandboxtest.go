// Package sandboxtest runs a sandbox for the length of a test.
package sandboxtest

import (
	"context"
	"testing"
	"time"

	"appview/internal/sandbox"
	"appview/internal/sandbox/stream"
)

// stopBound is how long a world may take to end.
const stopBound = 30 * time.Second

// Start makes a world and runs it until the test has ended. The test fails if
// the world cannot be made, fails, or does not end.
func Start(tb testing.TB, cfg sandbox.Config) *sandbox.World {
	tb.Helper()
	w, err := sandbox.New(cfg)
	if err != nil {
		tb.Fatalf("make the sandbox: %v", err)
	}
	run(tb, w.Run)
	return w
}

// StartStreams is Start for a world with streams.
func StartStreams(tb testing.TB, cfg sandbox.Config, streams stream.Config) (*sandbox.World, *stream.Streams) {
	tb.Helper()
	w, err := sandbox.New(cfg)
	if err != nil {
		tb.Fatalf("make the sandbox: %v", err)
	}
	s, err := stream.New(w, streams)
	if err != nil {
		_ = w.Close() // it never ran
		tb.Fatalf("make streams: %v", err)
	}
	run(tb, w.Run)
	run(tb, s.Run)
	tb.Cleanup(func() {
		for _, source := range s.Sources() {
			for _, err := range source.Err() {
				tb.Errorf("the stream at %s failed: %v", source.URL(), err)
			}
		}
	})
	return w, s
}

// run runs a part of the sandbox until the test has ended.
func run(tb testing.TB, part func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	tb.Cleanup(func() {
		cancel()
		timer := time.NewTimer(stopBound)
		defer timer.Stop()
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("the sandbox failed: %v", err)
			}
		case <-timer.C:
			tb.Errorf("the sandbox did not end within %s", stopBound)
		}
	})
}
