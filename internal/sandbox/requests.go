package sandbox

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// MethodDID is the Method of a look-up in the PLC directory.
const MethodDID = "{did}"

// MethodOther counts the requests for what a part does not offer.
const MethodOther = "other"

// Request is one request as it was seen. A fault hook gets it before the answer,
// without the members that tell of the answer.
type Request struct {
	Number     int64 // from 1, over all parts, in the order of arrival
	Part       Part
	Host       string // URL of the part
	Method     string // NSID, MethodDID, or the path
	DID        string // parameter did or repo, as sent
	Collection syntax.NSID
	RKey       string
	Cursor     string
	Limit      int // 0: not given
	Started    time.Time

	Ended  time.Time // when the answer was ready
	Status int       // 0: no answer was sent
	Bytes  int       // of the body, as sent
	Fault  bool
}

// watch keeps what was seen: the log, the fault hook and the counts of faults.
type watch struct {
	arrived atomic.Int64
	hook    atomic.Pointer[func(Request) Fault]

	mu     sync.Mutex
	size   int
	log    []Request // a ring once it is full
	oldest int
	faults map[string]int64
}

func newWatch(size int) *watch {
	return &watch{size: size, faults: make(map[string]int64)}
}

func (w *watch) add(r Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.log) < w.size {
		w.log = append(w.log, r)
		return
	}
	w.log[w.oldest] = r
	w.oldest = (w.oldest + 1) % w.size
}

// Requests are the logged requests that match, in the order in which their
// answers were ready; nil matches all. The log holds the last Config.LogSize
// requests, and every request whose answer has arrived.
func (w *World) Requests(match func(Request) bool) []Request {
	w.watch.mu.Lock()
	defer w.watch.mu.Unlock()
	var found []Request
	for i := range w.watch.log {
		r := w.watch.log[(w.watch.oldest+i)%len(w.watch.log)]
		if match == nil || match(r) {
			found = append(found, r)
		}
	}
	return found
}

// ResetRequests empties the log. Counters go on.
func (w *World) ResetRequests() {
	w.watch.mu.Lock()
	defer w.watch.mu.Unlock()
	w.watch.log, w.watch.oldest = nil, 0
}

// Count is how often a method was asked for so far, over all servers of a kind;
// an empty method counts all requests. What a part does not offer is counted as
// MethodOther.
func (w *World) Count(kind Part, method string) int64 {
	var n int64
	for _, p := range w.parts() {
		if p.kind == kind {
			n += p.count(method)
		}
	}
	return n
}

// CountAt is Count for the server with the URL.
func (w *World) CountAt(url, method string) int64 {
	for _, p := range w.parts() {
		if p.url == url {
			return p.count(method)
		}
	}
	return 0
}

func (p *part) count(method string) int64 {
	if method != "" {
		if c := p.counts[method]; c != nil {
			return c.Load()
		}
		return 0
	}
	var n int64
	for _, c := range p.counts {
		n += c.Load()
	}
	return n
}

// InFlight is how many requests the server with the URL is answering, and the
// most that it ever answered at once.
func (w *World) InFlight(url string) (now, most int64) {
	for _, p := range w.parts() {
		if p.url == url {
			return p.inFlight.Load(), p.highest.Load()
		}
	}
	return 0, 0
}
