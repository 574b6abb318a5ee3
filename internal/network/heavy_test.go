package network

import (
	"testing"

	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

// TestHeavyReposAreRefusedOrRead holds what wants our memory, time or disk against what
// each of them comes to.
func TestHeavyReposAreRefusedOrRead(t *testing.T) {
	t.Parallel()
	want := map[string]outcome.Reason{
		"long keys": outcome.ReasonTooLarge, "long record keys": outcome.ReasonTooLarge, "own long record keys": "", "tiny blocks": "", "large car": "",
		"small record named often": "", "large record named often": outcome.ReasonTooLarge,
		"endless records": outcome.ReasonHTTP5xx, "endless rejects": outcome.ReasonHTTP5xx, // these are to be listed
	}
	for _, b := range zoo.Heavy() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			w := sandboxtest.Start(t, sandbox.Config{Seed: 70, Hosts: 1, Repos: 1})
			did := w.Repos()[0].DID
			w.Assign(did, b)
			c := toWorld(t, w)
			r, err := c.Repo(t.Context(), Host(w.Repos()[0].Host), lookup(t, c, did))
			if reasonOf(err) != string(want[b.Name]) {
				t.Errorf("got %v, want %q", err, want[b.Name])
			}
			if err != nil {
				t.Log(err)
				return
			}
			n := 0
			for _, collection := range r.Collections() {
				for range r.Records(t.Context(), collection) {
					n++
				}
			}
			t.Logf("%d records, %d bytes held", n, c.Held())
			r.Close()
		})
	}
}
