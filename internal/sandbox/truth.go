package sandbox

import (
	"encoding/json"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Record is a record as the truth has it.
type Record struct {
	URI        string
	DID        syntax.DID
	Collection syntax.NSID
	RKey       syntax.RecordKey
	CID        string
	Rev        syntax.TID // of the commit that wrote it
	Value      json.RawMessage
	Odd        bool // the CID cannot be recomputed from Value
}

// Repo is an account as the truth has it.
type Repo struct {
	DID        syntax.DID
	Handle     string
	Host       string // URL
	Status     Status
	Rev        syntax.TID
	Records    int
	Tombstoned bool
}

func publicRecord(did syntax.DID, collection syntax.NSID, r *record) Record {
	return Record{
		URI: uriOf(did, collection, r.rkey), DID: did, Collection: collection, RKey: r.rkey,
		CID: r.text, Rev: r.rev, Value: r.json(), Odd: r.odd,
	}
}

// Truth is what an exact copy of the network holds at this moment: the records
// of all active accounts whose DID stands by URI, of the given collections or of all. Each repo
// is seen at one moment. Values are shared: do not change them.
func (w *World) Truth(collections ...syntax.NSID) map[string]Record {
	truth := make(map[string]Record)
	for _, a := range w.accounts() {
		a.mu.RLock()
		if a.status == StatusActive && !a.tombstoned {
			a.tell(truth, collections)
		}
		a.mu.RUnlock()
	}
	return truth
}

// TruthOf is what one repo holds, whatever its status; nil for an account that
// is unknown or deleted.
func (w *World) TruthOf(did syntax.DID, collections ...syntax.NSID) map[string]Record {
	a, err := w.account(did)
	if err != nil {
		return nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.status == StatusDeleted {
		return nil
	}
	truth := make(map[string]Record, a.records())
	a.tell(truth, collections)
	return truth
}

func (a *account) tell(truth map[string]Record, collections []syntax.NSID) {
	for collection, s := range a.shelves {
		if len(collections) > 0 && !slices.Contains(collections, collection) {
			continue
		}
		for _, r := range s.records {
			record := publicRecord(a.did, collection, r)
			truth[record.URI] = record
		}
	}
}

// Repos are all accounts that ever were, in order of creation.
func (w *World) Repos() []Repo {
	accounts := w.accounts()
	repos := make([]Repo, len(accounts))
	for i, a := range accounts {
		repos[i] = a.public()
	}
	return repos
}

// Repo is one account.
func (w *World) Repo(did syntax.DID) (Repo, error) {
	a, err := w.account(did)
	if err != nil {
		return Repo{}, err
	}
	return a.public(), nil
}

func (a *account) public() Repo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return Repo{
		DID: a.did, Handle: a.handle, Host: a.host.url, Status: a.status,
		Rev: a.rev, Records: a.records(), Tombstoned: a.tombstoned,
	}
}

func (a *account) currentStatus() Status {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.status
}

// HeadCID is the CID of a repo's current commit.
func (w *World) HeadCID(did syntax.DID) (string, error) {
	a, err := w.account(did)
	if err != nil {
		return "", err
	}
	h, err := a.currentHead()
	if err != nil {
		return "", err
	}
	return h.CID.String(), nil
}
