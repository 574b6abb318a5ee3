package sandbox

import (
	"fmt"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// EventKind is what an Event is about. The names are those of subscribeRepos.
type EventKind string

// The kinds of events.
const (
	EventCommit   EventKind = "commit"
	EventSync     EventKind = "sync" // a commit whose changes are not told
	EventIdentity EventKind = "identity"
	EventAccount  EventKind = "account"
)

// Event is a change as the account's host announces it. It is never changed.
type Event struct {
	Kind   EventKind
	DID    syntax.DID
	Host   string // URL of the host that announces it
	Handle string
	Status Status // of the account at that host

	// Of a commit and a sync.
	Head     *Head
	Since    syntax.TID // rev of the commit before; empty of the first
	PrevData cid.Cid    // top of the tree of the commit before; undefined of the first
	Ops      []EventOp
	All      []EventOp // of a sync: every record, as if it were created
}

// EventOp is one operation of a commit.
type EventOp struct {
	Op         Op
	Collection syntax.NSID
	RKey       syntax.RecordKey
	Entry      Entry   // zero in a delete
	Prev       cid.Cid // of the record before; undefined in a create
}

// observer is whom all changes are told.
type observer struct {
	now  func() time.Time
	tell func(Event)
}

// Observe tells of every change from now on, those of an account in their order. tell
// is called while the account is locked: it must return at once and ask nothing of the
// world. From then on the revs of commits are times: never before what now says.
func (w *World) Observe(now func() time.Time, tell func(Event)) {
	w.observer.Store(&observer{now: now, tell: tell})
}

// Handle serves a method of the server with the URL by a handler of its own, ahead of
// the log and of the fault hook. It must be called before Run.
func (w *World) Handle(url, method string, h http.Handler) error {
	for _, p := range w.parts() {
		if p.url == url {
			p.handlers[xrpcPrefix+method] = h
			return nil
		}
	}
	return fmt.Errorf("handle %s at %q: no such server", method, url)
}

// before gives the head that a commit follows, if anybody observes, and moves the
// account's clock to now. The caller holds mu for writing.
func (o *observer) before(a *account) (*Head, error) {
	if o == nil {
		return nil, nil
	}
	if !a.counts {
		a.clock.skipTo(o.now().UnixMicro())
	}
	return a.makeHead()
}

// event begins an event of an account. The caller holds mu.
func (a *account) event(kind EventKind) Event {
	return Event{Kind: kind, DID: a.did, Host: a.host.url, Handle: a.handle, Status: a.status}
}

// committed tells of a commit that was made. The caller holds mu for writing.
func (o *observer) committed(a *account, kind EventKind, last *Head, ops []EventOp) error {
	if o == nil {
		return nil
	}
	e := a.event(kind)
	var err error
	if e.Head, err = a.makeHead(); err != nil {
		return err
	}
	if kind == EventSync {
		for _, collection := range a.collections() {
			for _, r := range a.shelves[collection].records {
				e.All = append(e.All, EventOp{Op: OpCreate, Collection: collection, RKey: r.rkey, Entry: r.entry()})
			}
		}
	}
	if e.Ops = ops; last != nil {
		e.Since, e.PrevData = last.Rev, last.Root()
	}
	o.tell(e)
	return nil
}

// changed tells of what is no commit. The caller holds mu.
func (o *observer) changed(a *account, kinds ...EventKind) {
	if o == nil {
		return
	}
	for _, kind := range kinds {
		o.tell(a.event(kind))
	}
}

// opOf is what a change does to the repo as it is. The caller holds mu.
func (a *account) opOf(op Op, c change) EventOp {
	o := EventOp{Op: op, Collection: c.collection, RKey: c.rkey}
	if old := a.shelves[c.collection].get(c.rkey); old != nil {
		o.Prev = old.cid
	}
	if c.record != nil {
		o.Entry = c.record.entry()
	}
	return o
}
