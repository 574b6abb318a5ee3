package network

import (
	"context"
	"errors"
	"time"
)

// Kind is what a host is to us.
type Kind string

// The kinds of hosts.
const (
	KindRelay Kind = "relay"
	KindPLC   Kind = "plc"
	KindPDS   Kind = "pds" // also of the pages that hold did:web documents
)

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{KindRelay, KindPLC, KindPDS} }

// Exchange is one request and its answer, as it is measured.
type Exchange struct {
	Kind   Kind
	Status int           // of HTTP; 0 if there was no answer
	Took   time.Duration // until the answer was read, without what was waited for before
}

func (c *Client) kind(h Host) Kind {
	switch h {
	case c.relay:
		return KindRelay
	case c.plc:
		return KindPLC
	default:
		return KindPDS
	}
}

// observe tells of a request, if anybody wants to know. What we took back before
// it was sent is none, nor is what its caller gave up.
func (c *Client) observe(ctx context.Context, h Host, r *received, err error, took time.Duration) {
	if c.cfg.Observe == nil || ctx.Err() != nil || errors.Is(err, errSilenced) || errors.Is(err, errCrowded) {
		return
	}
	e := Exchange{Kind: c.kind(h), Took: took}
	if err == nil {
		e.Status = r.status
	}
	c.cfg.Observe(e)
}

// Census counts hosts that somebody has to do with.
type Census struct {
	Known  int // talked to lately, or to be left alone
	Parked int // of these, asked to be left alone for a while
	Down   int // of these, set aside because they do not answer
}

// Census counts the hosts of each kind.
func (c *Client) Census() map[Kind]Census {
	now := c.cfg.Now()
	counts := make(map[Kind]Census, len(Kinds()))
	for _, k := range Kinds() {
		counts[k] = Census{}
	}
	for _, g := range c.gates.list() {
		n := counts[c.kind(g.host)]
		n.Known++
		switch parked, down := g.standing(now); {
		case down:
			n.Down++
		case parked:
			n.Parked++
		}
		counts[c.kind(g.host)] = n
	}
	return counts
}

// list is every gate there is.
func (gs *gates) list() []*gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	list := make([]*gate, 0, len(gs.all))
	for _, g := range gs.all {
		list = append(list, g)
	}
	return list
}

// standing tells whether a host has asked for a pause, on any lane, and whether
// the breaker has set it aside.
func (g *gate) standing(now time.Time) (parked, down bool) {
	parked = !g.quiet(now).IsZero()
	g.mu.Lock()
	defer g.mu.Unlock()
	return parked, g.breakers[wayOrdinary].down || g.breakers[wayService].down
}
