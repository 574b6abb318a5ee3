// Package sandboxtest runs a sandbox for the length of a test.
package sandboxtest

import (
	"context"
	"testing"
	"time"

	"appview/internal/sandbox"
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
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
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
	return w
}
