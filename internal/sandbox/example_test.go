package sandbox_test

import (
	"context"
	"fmt"
	"log"

	"appview/internal/sandbox"
)

// A world is made, runs as long as its context, and knows what it holds.
func Example() {
	w, err := sandbox.New(sandbox.Config{Seed: 1, Hosts: 2, Repos: 5})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()

	// Here a program reads w.RelayURL() and w.PLCURL() while the world changes.
	did := w.Repos()[0].DID
	if _, err := w.Empty(did); err != nil {
		log.Fatal(err)
	}
	if _, err := w.Create(did, sandbox.StatusCollection, "", map[string]any{"status": "🌱"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(w.TruthOf(did)), "record")

	stop()
	fmt.Println(<-ended)
	// Output:
	// 1 record
	// <nil>
}
