package network

import (
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

// readAs asks as a job does, once each: who and where, at which revision, and the
// records, in one piece or page by page. It returns the first error.
func readAs(tb testing.TB, c *Client, did syntax.DID, whole bool) error {
	tb.Helper()
	ident, err := c.Lookup(tb.Context(), did)
	if err != nil {
		return err
	}
	st, err := c.RepoStatus(tb.Context(), ident.PDS, did)
	if err != nil && (!whole || reasonOf(err) != string(outcome.ReasonNoRev)) {
		return err
	}
	if reason := st.Reason(); err == nil && reason != "" {
		return &Error{Reason: reason}
	}
	if whole {
		r, err := c.Repo(tb.Context(), ident.PDS, ident)
		if err == nil {
			r.Close()
		}
		return err
	}
	_, err = c.ListRecords(tb.Context(), ident.PDS, did, sandbox.NoteCollection, "")
	return err
}

// TestTheZooIsClassed holds what single answers are classed as against what the
// sandbox says that they come to.
func TestTheZooIsClassed(t *testing.T) {
	t.Parallel()
	// What a CAR is classed as that does not end a repo, because listing it is left.
	cars := map[string]outcome.Reason{
		"missing node": outcome.ReasonIncomplete, "missing record": outcome.ReasonIncomplete, "cut between blocks": outcome.ReasonIncomplete,
		"cut car": outcome.ReasonCutBody, "flipped bit": outcome.ReasonBadAnswer, "another repo": outcome.ReasonBadAnswer,
		"unshared prefixes": outcome.ReasonBadAnswer, "short prefixes": outcome.ReasonBadAnswer, "swapped keys": outcome.ReasonBadAnswer, "repeated key": outcome.ReasonBadAnswer,
		"one node": outcome.ReasonBadAnswer, "empty node": outcome.ReasonBadAnswer, "top without key": outcome.ReasonBadAnswer, "extra layer": outcome.ReasonBadAnswer,
	}
	// What only a whole listing, or a reader with a memory, can tell.
	later := map[string]bool{"repeated cursor": true, "endless pages": true, "empty pages": true, "rev goes back": true, "wrapping pages": true, "cycling cursors": true}
	for _, b := range zoo.All() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			w := sandboxtest.Start(t, sandbox.Config{Seed: 70, Hosts: 1, Repos: 2, Collections: []sandbox.Collection{
				{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 30, MaxRecords: 30},
			}})
			did := w.Repos()[0].DID
			w.Assign(did, b)
			c := newClient(t, Config{Relay: w.RelayURL(), PLC: w.PLCURL(), Timing: Timing{BodyIdle: 3 * time.Second, Header: 10 * time.Second}})
			for _, whole := range []bool{false, true} {
				want := outcome.Reason(zoo.ExpectedListed(w, did).Reason)
				if whole {
					want = outcome.Reason(zoo.Expected(w, did, true).Reason)
				}
				if whole && cars[b.Name] != "" {
					want = cars[b.Name]
				}
				err := readAs(t, c, did, whole)
				if settled := want == outcome.ReasonExact || want == outcome.ReasonRejected || later[b.Name]; settled {
					if err != nil {
						t.Errorf("whole %v: %v", whole, err)
					}
					continue
				}
				if reasonOf(err) != string(want) {
					t.Errorf("whole %v: got %v, want %s", whole, err, want)
				}
			}
			if w.Faults(b.Name) == 0 {
				t.Error("it never fired")
			}
		})
	}
}
