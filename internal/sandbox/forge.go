package sandbox

import (
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox/encode"
)

// Whoever misbehaves is a host with the account's key in its hands: what it says is
// made from the same parts as what an honest one says. These are the parts.

// Entry is a record in the forms in which hosts send it. It is never changed.
type Entry struct {
	RKey  syntax.RecordKey
	CID   cid.Cid
	Block []byte // DAG-CBOR
	Item  []byte // {"uri":…,"cid":…,"value":…}, as getRecord and listRecords send it
}

func (r *record) entry() Entry {
	return Entry{RKey: r.rkey, CID: r.cid, Block: r.block, Item: r.item}
}

// MakeEntry makes up a sound record that is in no repo.
func MakeEntry(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey, value map[string]any) (Entry, error) {
	r, err := newRecord(did, collection, rkey, "", value, false)
	if err != nil {
		return Entry{}, err
	}
	return r.entry(), nil
}

// Entries are the records of a collection of a repo, the lowest key first.
func (w *World) Entries(did syntax.DID, collection syntax.NSID) []Entry {
	a, err := w.account(did)
	if err != nil {
		return nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.shelves[collection]
	if s == nil {
		return nil
	}
	entries := make([]Entry, len(s.records))
	for i, r := range s.records {
		entries[i] = r.entry()
	}
	return entries
}

// Collections are the names of the collections that a repo has records of, sorted.
func (w *World) Collections(did syntax.DID) []syntax.NSID {
	a, err := w.account(did)
	if err != nil {
		return nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.collections()
}

// Head is the current commit of a repo.
func (w *World) Head(did syntax.DID) (*Head, error) {
	a, err := w.account(did)
	if err != nil {
		return nil, err
	}
	return a.currentHead()
}

// HeadOver signs a commit of the current rev over the repo's tree as change leaves it,
// and gives the repo's records beside it.
func (w *World) HeadOver(did syntax.DID, change func(*mst.Tree) error) (*Head, []encode.Block, error) {
	a, err := w.account(did)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	tree, err := a.tree()
	if err != nil {
		return nil, nil, err
	}
	if err := change(&tree); err != nil {
		return nil, nil, fmt.Errorf("change tree of %s: %w", did, err)
	}
	var records []encode.Block
	for _, s := range a.shelves {
		for _, r := range s.records {
			records = append(records, encode.Block{CID: r.cid, Data: r.block})
		}
	}
	h, err := a.headOver(tree)
	return h, records, err
}

// Sign makes the block of a commit with a new signature by the account's key.
func (w *World) Sign(did syntax.DID, commit repo.Commit) (encode.Block, error) {
	a, err := w.account(did)
	if err != nil {
		return encode.Block{}, err
	}
	a.mu.Lock()
	key, err := a.signingKey()
	a.mu.Unlock()
	if err != nil {
		return encode.Block{}, err
	}
	return SignCommit(commit, key)
}

// CAR is the whole repo, as getRepo sends it.
func (w *World) CAR(did syntax.DID) ([]byte, error) {
	a, err := w.account(did)
	if err != nil {
		return nil, err
	}
	return a.car(nil, "")
}

// Proof is the proof of a record, as com.atproto.sync.getRecord sends it.
func (w *World) Proof(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) ([]byte, error) {
	a, err := w.account(did)
	if err != nil {
		return nil, err
	}
	return a.proof(nil, collection, rkey)
}
