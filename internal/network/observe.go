package network

import (
	"net/http"
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

// observe tells of a request, if anybody wants to know.
func (c *Client) observe(host Host, status int, took time.Duration) {
	if c.cfg.Observe != nil {
		c.cfg.Observe(Exchange{Kind: c.kind(host), Status: status, Took: took})
	}
}

// Census counts hosts that somebody has to do with.
type Census struct {
	Known  int // talked to lately, or to be left alone
	Parked int // of these, asked to be left alone for a while
	Down   int // of these, set aside because they do not answer
}

// Census counts the hosts of each kind.
func (c *Client) Census() map[Kind]Census {
	counts := make(map[Kind]Census, len(Kinds()))
	for _, k := range Kinds() {
		counts[k] = Census{}
	}
	for _, s := range c.Standings() {
		n := counts[c.kind(s.Host)]
		n.Known++
		switch {
		case s.Down:
			n.Down++
		case s.Parked:
			n.Parked++
		}
		counts[c.kind(s.Host)] = n
	}
	return counts
}

// Sockets is a client for the websockets of live sources, over the same guard as all else.
func (c *Client) Sockets() *http.Client { return c.transport.Sockets() }
