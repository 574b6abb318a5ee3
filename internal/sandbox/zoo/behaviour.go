package zoo

import (
	"math/rand/v2"
	"net/http"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// Content types as hosts write them.
const (
	contentJSON = "application/json; charset=utf-8"
	contentHTML = "text/html; charset=utf-8"
	contentText = "text/plain; charset=utf-8"
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

// Behaviour is a way to misbehave with what it should come to. The constructors of
// this package make them.
type Behaviour struct {
	Name string
	// Listed is the outcome of a repo that is read by listRecords alone, Whole that
	// of one that is read by getRepo first and listed if that fails. The zero Outcome
	// is that of a repo that nothing is wrong with.
	Listed, Whole Outcome
	// OnRecords says that the outcomes are those of repos with records: others
	// end as if nothing were wrong.
	OnRecords bool

	fault func(*sandbox.World, sandbox.Request) sandbox.Fault // nil: none
}

// Misbehave is what is to be done to a request.
func (b Behaviour) Misbehave(w *sandbox.World, r sandbox.Request) sandbox.Fault {
	if b.fault == nil {
		return sandbox.Fault{}
	}
	f := b.fault(w, r)
	f.Name = b.Name
	return f
}

// Scatter assigns behaviours to a share of the active repos, in turn, and gives the
// behaviour of each. The same world and seed give the same.
func Scatter(w *sandbox.World, seed uint64, share float64, from ...Behaviour) map[syntax.DID]Behaviour {
	rng := rand.New(rand.NewPCG(seed, 0))
	to := make(map[syntax.DID]Behaviour)
	for _, repo := range w.Repos() {
		if hit := rng.Float64() < share; !hit || len(from) == 0 || repo.Status != sandbox.StatusActive {
			continue
		}
		b := from[len(to)%len(from)]
		to[repo.DID] = b
		w.Assign(repo.DID, b)
	}
	return to
}

// Expected is what the repo should be settled as, with what was assigned to it or
// to its host, by a job that reads the collections, or all. whole says that it
// asks for getRepo first; else it lists first, and asks for getRepo when that
// fails. Of a repo that the fault hook breaks it knows nothing.
func Expected(w *sandbox.World, did syntax.DID, whole bool, collections ...syntax.NSID) Outcome {
	return expected(w, did, func(b Behaviour) Outcome {
		if whole || b.Whole == (Outcome{}) {
			return b.Whole
		}
		return b.Listed
	}, collections)
}

// ExpectedListed is Expected for a host that offers no getRepo.
func ExpectedListed(w *sandbox.World, did syntax.DID, collections ...syntax.NSID) Outcome {
	return expected(w, did, func(b Behaviour) Outcome { return b.Listed }, collections)
}

func expected(w *sandbox.World, did syntax.DID, of func(Behaviour) Outcome, collections []syntax.NSID) Outcome {
	repo, err := w.Repo(did)
	if err != nil {
		return unavailable("not_found")
	}
	well, records := unspoiled(w, repo, collections)
	b, ok := w.Assigned(did, repo.Host).(Behaviour)
	if !ok {
		return well
	}
	said := of(b)
	if said == (Outcome{}) || well.Class != "done" || b.OnRecords && !records {
		return well
	}
	return said
}

// unspoiled is the outcome of a repo that nobody misbehaves for.
func unspoiled(w *sandbox.World, repo sandbox.Repo, collections []syntax.NSID) (o Outcome, records bool) {
	if repo.Tombstoned {
		return unavailable("tombstoned"), false
	}
	switch repo.Status {
	case sandbox.StatusDeleted:
		return unavailable("not_found"), false
	case sandbox.StatusTakendown:
		return unavailable("taken_down"), false
	case sandbox.StatusSuspended:
		return unavailable("suspended"), false
	case sandbox.StatusDeactivated:
		return unavailable("deactivated"), false
	case sandbox.StatusActive:
	}
	for _, has := range w.Collections(repo.DID) {
		records = records || len(collections) == 0 || slices.Contains(collections, has)
	}
	if records {
		return outcomeExact, true
	}
	return outcomeEmpty, false
}

// on is a fault for the requests of some methods.
func on(f sandbox.Fault, methods ...string) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
		if slices.Contains(methods, r.Method) {
			return f
		}
		return sandbox.Fault{}
	}
}

// sound changes a good answer and leaves a refusal as it is.
func sound(change func(sandbox.Answer) sandbox.Answer) sandbox.Fault {
	return sandbox.Fault{Rewrite: func(a sandbox.Answer) sandbox.Answer {
		if a.Status != http.StatusOK {
			return a
		}
		return change(a)
	}}
}

// All are the behaviours that single repos may have, in a fixed order.
func All() []Behaviour {
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
