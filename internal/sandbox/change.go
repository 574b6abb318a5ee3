package sandbox

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Errors that callers tell apart.
var (
	ErrUnknownAccount = errors.New("no such account")
	ErrInactive       = errors.New("account is not active")
	ErrNoRecord       = errors.New("no such record")
	ErrRecordExists   = errors.New("record exists already")
)

// Op is what a Write does.
type Op string

// The operations of a commit.
const (
	OpCreate Op = "create"
	OpUpdate Op = "update"
	OpDelete Op = "delete"
)

// Write is one operation of a commit.
type Write struct {
	Op         Op
	Collection syntax.NSID
	RKey       syntax.RecordKey // may be empty in a create: the next TID
	Value      map[string]any   // atproto data; nil in a delete
	Odd        bool             // the CID cannot be recomputed from the JSON
}

// Create adds a record. An empty rkey means the next TID of the repo. The value
// is atproto data: maps, []any, strings, int or int64, bool, nil, and atdata's
// CIDLink, Bytes and Blob.
func (w *World) Create(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey, value map[string]any) (Record, error) {
	return w.write(did, Write{Op: OpCreate, Collection: collection, RKey: rkey, Value: value})
}

// Update replaces a record.
func (w *World) Update(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey, value map[string]any) (Record, error) {
	return w.write(did, Write{Op: OpUpdate, Collection: collection, RKey: rkey, Value: value})
}

// Delete removes a record.
func (w *World) Delete(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) error {
	_, err := w.write(did, Write{Op: OpDelete, Collection: collection, RKey: rkey})
	return err
}

// Apply does several writes in one commit, all of them or none, and returns the
// commit's rev. No two of them may be to one record.
func (w *World) Apply(did syntax.DID, writes []Write) (syntax.TID, error) {
	_, rev, err := w.commit(did, EventCommit, func(*account) ([]Write, error) { return writes, nil })
	return rev, err
}

// Resync does several writes in one commit whose contents are not announced, as after an
// import: observers hear of a sync.
func (w *World) Resync(did syntax.DID, writes []Write) (syntax.TID, error) {
	_, rev, err := w.commit(did, EventSync, func(*account) ([]Write, error) { return writes, nil })
	return rev, err
}

// Empty deletes all records of a repo in one commit.
func (w *World) Empty(did syntax.DID) (syntax.TID, error) {
	_, rev, err := w.commit(did, EventCommit, func(a *account) ([]Write, error) {
		var writes []Write
		for _, collection := range a.collections() {
			for _, r := range a.shelves[collection].records {
				writes = append(writes, Write{Op: OpDelete, Collection: collection, RKey: r.rkey})
			}
		}
		return writes, nil
	})
	return rev, err
}

func (w *World) write(did syntax.DID, one Write) (Record, error) {
	made, _, err := w.commit(did, EventCommit, func(*account) ([]Write, error) { return []Write{one}, nil })
	if err != nil {
		return Record{}, err
	}
	return made[0], nil
}

// commit makes one commit of what plan wants. plan sees the repo as it is and
// nobody else sees it until the records and the rev have moved.
func (w *World) commit(did syntax.DID, kind EventKind, plan func(*account) ([]Write, error)) ([]Record, syntax.TID, error) {
	a, err := w.account(did)
	if err != nil {
		return nil, "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status != StatusActive {
		return nil, "", fmt.Errorf("write to %s, which is %s: %w", did, a.status, ErrInactive)
	}
	watching := w.observer.Load()
	last, err := watching.before(a)
	if err != nil {
		return nil, "", err
	}
	writes, err := plan(a)
	if err != nil {
		return nil, "", err
	}
	changes, rev, err := a.prepare(writes)
	if err != nil {
		return nil, "", err
	}
	made, ops := make([]Record, len(writes)), make([]EventOp, len(writes))
	for i, c := range changes {
		ops[i] = a.opOf(writes[i].Op, c)
		a.put(c.collection, c.rkey, c.record)
		if c.record != nil {
			made[i] = publicRecord(a.did, c.collection, c.record)
			w.directory.note(a.did, c.collection)
		}
	}
	a.rev, a.head = rev, nil
	return made, rev, watching.committed(a, kind, last, ops)
}

// change is a write that was found possible.
type change struct {
	collection syntax.NSID
	rkey       syntax.RecordKey
	record     *record // nil: delete
}

// prepare checks the writes against the repo and encodes their records at the
// rev of the coming commit. It changes nothing but the clock.
func (a *account) prepare(writes []Write) ([]change, syntax.TID, error) {
	keys := make([]syntax.RecordKey, len(writes))
	seen := make(map[string]bool, len(writes))
	for i, one := range writes {
		keys[i] = one.RKey
		if one.RKey == "" && one.Op == OpCreate {
			keys[i] = syntax.RecordKey(a.clock.next())
		}
		uri := uriOf(a.did, one.Collection, keys[i])
		if err := a.check(one, keys[i]); err != nil {
			return nil, "", fmt.Errorf("%s %s: %w", one.Op, uri, err)
		}
		if seen[uri] {
			return nil, "", fmt.Errorf("%s %s: two writes to one record", one.Op, uri)
		}
		seen[uri] = true
	}
	rev := a.clock.next()
	changes := make([]change, len(writes))
	for i, one := range writes {
		changes[i] = change{collection: one.Collection, rkey: keys[i]}
		if one.Op == OpDelete {
			continue
		}
		var err error
		if changes[i].record, err = newRecord(a.did, one.Collection, keys[i], rev, one.Value, one.Odd); err != nil {
			return nil, "", err
		}
	}
	return changes, rev, nil
}

func (a *account) check(one Write, rkey syntax.RecordKey) error {
	if _, err := syntax.ParseNSID(one.Collection.String()); err != nil {
		return err
	}
	if _, err := syntax.ParseRecordKey(rkey.String()); err != nil {
		return err
	}
	exists := a.shelves[one.Collection].get(rkey) != nil
	switch one.Op {
	case OpCreate:
		if exists {
			return ErrRecordExists
		}
	case OpUpdate, OpDelete:
		if !exists {
			return ErrNoRecord
		}
	default:
		return fmt.Errorf("unknown operation %q", one.Op)
	}
	if one.Op != OpDelete && one.Value == nil {
		return errors.New("no value")
	}
	return nil
}
