package sandbox

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Outcome is what a reader that keeps the rules settles a repo as. The names are
// those of the reports.
type Outcome struct {
	Class  string
	Reason string
}

// Outcomes of repos that nothing is wrong with.
var (
	outcomeExact = Outcome{"done", "exact"}
	outcomeEmpty = Outcome{"done", "empty"}
)

func failed(reason string) Outcome      { return Outcome{"failed", reason} }
func unavailable(reason string) Outcome { return Outcome{"unavailable", reason} }

// Behaviour is a way to misbehave that goes on, with a name that its faults are
// counted by, and with what it should come to. The constructors of this package
// make them; [World.Assign] and [World.AssignHost] give them to somebody.
type Behaviour struct {
	Name string
	// Listed is the outcome of a repo that is read by listRecords alone, Whole that
	// of one that is read by getRepo first and listed if that fails. The zero Outcome
	// is that of a repo that nothing is wrong with.
	Listed, Whole Outcome
	// OnRecords says that the outcomes are those of repos with records: others
	// end as if nothing were wrong.
	OnRecords bool

	fault func(*World, Request) Fault
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

// Assign makes every part behave so to requests about a repo. The zero Behaviour
// ends it. A fault hook comes first.
func (w *World) Assign(did syntax.DID, b Behaviour) {
	w.behaviours.mu.Lock()
	defer w.behaviours.mu.Unlock()
	if b.fault == nil {
		delete(w.behaviours.byDID, did)
		return
	}
	w.behaviours.byDID[did] = b
}

// AssignHost makes the server with the URL behave so to all requests. What was
// assigned to the repo that a request is about comes first.
func (w *World) AssignHost(url string, b Behaviour) {
	w.behaviours.mu.Lock()
	defer w.behaviours.mu.Unlock()
	if b.fault == nil {
		delete(w.behaviours.byHost, url)
		return
	}
	w.behaviours.byHost[url] = b
}

// Scatter assigns behaviours to a share of the active repos, in turn, and tells
// to which. The same world and seed give the same.
func (w *World) Scatter(seed int64, share float64, from ...Behaviour) map[syntax.DID]Behaviour {
	rng := rand.New(rand.NewChaCha8(derive(seed, "scatter")))
	to := make(map[syntax.DID]Behaviour)
	for _, a := range w.accounts() {
		if hit := rng.Float64() < share; !hit || len(from) == 0 || a.currentStatus() != StatusActive {
			continue
		}
		b := from[len(to)%len(from)]
		to[a.did] = b
		w.Assign(a.did, b)
	}
	return to
}

// Expected is what the repo should be settled as, with what was assigned to it or
// to its host, by a job that reads the collections, or all. whole says that it
// asks for getRepo first; else it lists first, and asks for getRepo when that
// fails. Of a repo that the fault hook breaks it knows nothing.
func (w *World) Expected(did syntax.DID, whole bool, collections ...syntax.NSID) Outcome {
	return w.expected(did, func(b Behaviour) Outcome {
		if whole || b.Whole == (Outcome{}) {
			return b.Whole
		}
		return b.Listed
	}, collections)
}

// ExpectedListed is Expected for a host that offers no getRepo.
func (w *World) ExpectedListed(did syntax.DID, collections ...syntax.NSID) Outcome {
	return w.expected(did, func(b Behaviour) Outcome { return b.Listed }, collections)
}

func (w *World) expected(did syntax.DID, of func(Behaviour) Outcome, collections []syntax.NSID) Outcome {
	a, err := w.account(did)
	if err != nil {
		return unavailable("not_found")
	}
	w.behaviours.mu.RLock()
	b, ok := w.behaviours.byDID[did]
	if !ok {
		b = w.behaviours.byHost[a.public().Host]
	}
	w.behaviours.mu.RUnlock()
	well, records := a.expected(collections)
	said := of(b)
	if said == (Outcome{}) || well.Class != "done" || b.OnRecords && !records {
		return well
	}
	return said
}

// expected is the outcome of an account that nobody misbehaves for.
func (a *account) expected(collections []syntax.NSID) (o Outcome, records bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.tombstoned {
		return unavailable("tombstoned"), false
	}
	switch a.status {
	case StatusDeleted:
		return unavailable("not_found"), false
	case StatusTakendown:
		return unavailable("taken_down"), false
	case StatusSuspended:
		return unavailable("suspended"), false
	case StatusDeactivated:
		return unavailable("deactivated"), false
	case StatusActive:
	}
	if len(collections) == 0 {
		records = len(a.shelves) > 0
	}
	for _, collection := range collections {
		records = records || a.shelves[collection] != nil
	}
	if records {
		return outcomeExact, true
	}
	return outcomeEmpty, false
}

// faultFor is what is to be done to a request, counted if it is anything.
func (w *World) faultFor(r Request) Fault {
	f := w.watch.faultFor(r)
	if !f.isSet() {
		if f = w.behaviours.faultFor(w, r); f.isSet() {
			w.watch.fired(f)
		}
	}
	return f
}

func (bs *behaviours) faultFor(w *World, r Request) Fault {
	bs.mu.RLock()
	b, ok := bs.byDID[syntax.DID(r.DID)]
	if !ok {
		b, ok = bs.byHost[r.Host]
	}
	bs.mu.RUnlock()
	if !ok {
		return Fault{}
	}
	f := b.fault(w, r)
	f.Name = b.Name
	return f
}

// on is a fault for the requests of some methods.
func on(f Fault, methods ...string) func(*World, Request) Fault {
	return func(_ *World, r Request) Fault {
		if slices.Contains(methods, r.Method) {
			return f
		}
		return Fault{}
	}
}

// sound changes a good answer and leaves a refusal as it is.
func sound(change func(Answer) Answer) Fault {
	return Fault{Rewrite: func(a Answer) Answer {
		if a.Status != http.StatusOK {
			return a
		}
		return change(a)
	}}
}

// Zoo is every behaviour there is, in a fixed order.
func Zoo() []Behaviour {
	var all []Behaviour
	all = append(all, listZoo()...)
	all = append(all, valueZoo()...)
	all = append(all, orderZoo()...)
	all = append(all, carZoo()...)
	all = append(all, treeZoo()...)
	all = append(all, pathZoo()...)
	all = append(all, revZoo()...)
	all = append(all, documentZoo()...)
	return append(all, wireZoo()...)
}
