package sandbox

import (
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Behaviour is a way to misbehave that goes on. It says what is to be done to a
// request, under a name that its faults are counted by, and is called concurrently.
type Behaviour interface {
	Misbehave(w *World, r Request) Fault
}

// behaviours are those that were assigned.
type behaviours struct {
	mu     sync.RWMutex
	byDID  map[syntax.DID]Behaviour
	byHost map[string]Behaviour
}

func newBehaviours() *behaviours {
	return &behaviours{byDID: make(map[syntax.DID]Behaviour), byHost: make(map[string]Behaviour)}
}

// Assign makes every part behave so to requests about a repo; nil ends it. A fault
// hook comes first.
func (w *World) Assign(did syntax.DID, b Behaviour) {
	w.behaviours.mu.Lock()
	defer w.behaviours.mu.Unlock()
	if b == nil {
		delete(w.behaviours.byDID, did)
		return
	}
	w.behaviours.byDID[did] = b
}

// AssignHost makes the server with the URL behave so to all requests; nil ends it.
// What was assigned to the repo that a request is about comes first.
func (w *World) AssignHost(url string, b Behaviour) {
	w.behaviours.mu.Lock()
	defer w.behaviours.mu.Unlock()
	if b == nil {
		delete(w.behaviours.byHost, url)
		return
	}
	w.behaviours.byHost[url] = b
}

// Assigned is what was assigned to a repo, or else to the host with the URL; nil if
// nothing was.
func (w *World) Assigned(did syntax.DID, url string) Behaviour {
	w.behaviours.mu.RLock()
	defer w.behaviours.mu.RUnlock()
	if b, ok := w.behaviours.byDID[did]; ok {
		return b
	}
	return w.behaviours.byHost[url]
}

// faultFor is what is to be done to a request, counted if it is anything.
func (w *World) faultFor(r Request) Fault {
	f := w.watch.faultFor(r)
	if f.isSet() {
		return f
	}
	b := w.Assigned(syntax.DID(r.DID), r.Host)
	if b == nil {
		return Fault{}
	}
	if f = b.Misbehave(w, r); f.isSet() {
		w.watch.fired(f)
	}
	return f
}
