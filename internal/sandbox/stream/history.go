package stream

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// version is what became of a record or of an account at an event.
type version struct {
	number int
	cid    string // empty: the record is not there
	active bool   // of an account
}

// history is every repo at every time: what each event made of a record or an account.
type history struct {
	mu       sync.Mutex
	most     int
	number   int // of the next event
	full     bool
	records  map[string][]version // by AT-URI
	accounts map[syntax.DID][]version
	host     map[syntax.DID]string // as last announced
}

func newHistory(most int) *history {
	return &history{
		most: most, records: make(map[string][]version), accounts: make(map[syntax.DID][]version),
		host: make(map[syntax.DID]string),
	}
}

// add takes an event in and gives its number, which orders events in time.
func (h *history) add(e sandbox.Event) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := h.number
	if h.number++; h.number > h.most {
		h.full = true
		return number
	}
	switch e.Kind {
	case sandbox.EventIdentity:
		h.host[e.DID] = e.Host
	case sandbox.EventAccount:
		if h.at(e) {
			h.accounts[e.DID] = append(h.accounts[e.DID], version{number: number, active: e.Status == sandbox.StatusActive})
		}
	case sandbox.EventCommit, sandbox.EventSync:
		for _, o := range e.Ops {
			uri := "at://" + e.DID.String() + "/" + pathOf(o)
			v := version{number: number}
			if o.Entry.CID.Defined() {
				v.cid = o.Entry.CID.String()
			}
			if h.records[uri] == nil { // what it was before anybody watched
				before := version{number: -1}
				if o.Prev.Defined() {
					before.cid = o.Prev.String()
				}
				h.records[uri] = []version{before}
			}
			h.records[uri] = append(h.records[uri], v)
		}
	}
	return number
}

// at reports whether the host of an event is where the account is.
func (h *history) at(e sandbox.Event) bool {
	host, known := h.host[e.DID]
	return !known || host == e.Host
}

func (h *history) isCurrent(e sandbox.Event) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at(e)
}

// Versions are the CIDs that a record had at some moment from then on, of those that the
// source had relayed until now; an empty one means that it was not there, or that its
// account was not active. With a zero time they are all that it ever had. nil: nothing
// happened to the record or its account while anybody watched: it is as the world has it.
//
// What a source has relayed of an account is taken to be a beginning of its history. What
// is newer may be had from its host, and is no version of the source yet; Versions of a
// nil source has it.
func (s *Streams) Versions(source *Source, uri syntax.ATURI, from time.Time) (map[string]bool, error) {
	did, err := uri.Authority().AsDID()
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", uri, err)
	}
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full {
		return nil, fmt.Errorf("look up %s: more than %d events happened, and not all are remembered", uri, h.most)
	}
	since, until := -1, h.number
	if source != nil {
		since, until = source.relayedOf(did, from)
	}
	records, accounts := h.records[uri.String()], h.accounts[did]
	if records == nil && accounts == nil {
		return nil, nil
	}
	if records == nil { // its account's status alone has changed
		records = []version{{number: -1, cid: s.present(did, uri)}}
	}
	turns := map[int]bool{since: true}
	for _, v := range slices.Concat(records, accounts) {
		if v.number > since && v.number <= until {
			turns[v.number] = true
		}
	}
	found := make(map[string]bool)
	for number := range maps.Keys(turns) {
		v := latest(records, number)
		if a := latest(accounts, number); a != nil && !a.active {
			v = nil
		}
		if v == nil {
			v = &version{}
		}
		found[v.cid] = true
	}
	return found, nil
}

// present is the CID of a record that never changed.
func (s *Streams) present(did syntax.DID, uri syntax.ATURI) string {
	return s.world.TruthOf(did, uri.Collection())[uri.String()].CID
}

// latest is the newest version up to an event.
func latest(versions []version, number int) *version {
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].number <= number {
			return &versions[i]
		}
	}
	return nil
}
