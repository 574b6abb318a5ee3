package backfill

import (
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// claims are the repos that are being read, by any job. A claim is taken before
// the host is asked for the repo's rev, and given back when the result is in the
// store's queue: so the results of two jobs are written in the order of the revs
// that they were read at.
type claims struct {
	mu   sync.Mutex
	held map[syntax.DID]struct{}
}

func newClaims() *claims { return &claims{held: map[syntax.DID]struct{}{}} }

// take claims a repo, and reports whether it was free.
func (c *claims) take(did syntax.DID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.held[did]; taken {
		return false
	}
	c.held[did] = struct{}{}
	return true
}

func (c *claims) release(did syntax.DID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, did)
}
