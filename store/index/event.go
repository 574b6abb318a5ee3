package index

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
)

// Event is what a stream tells of one record: what a commit has made of it.
type Event struct {
	Collection syntax.NSID
	RKey       syntax.RecordKey
	Rev        syntax.TID   // of the commit
	Body       *record.Body // nil: it was deleted
}

// Told counts what the events of a change came to.
type Told struct {
	Applied   int // the index was brought to what they tell
	Contained int // the index knew it, or something newer, or a reading has seen it
	Raised    int // the record was the same: only its rev has moved
	// Disputed are those that tell something else of a record than what an event of the same
	// rev has told: a commit may name a key twice, and not say which is the end. Nothing was
	// written of them: the repo is to be read.
	Disputed int
	// Full are those that would have made the account larger than one may be, or given it
	// more tombstones in a collection than it may have. Nothing was written of them: the repo is to be read, and no reading under way counts.
	Full int
}

// applyEvents applies the events of a change, in their order.
func (r *repoRow) applyEvents(events []Event, most int64, t *Told) error {
	for _, e := range events {
		if err := r.applyEvent(e, most, t); err != nil {
			return fmt.Errorf("%s/%s/%s: %w", r.repo.DID, e.Collection, e.RKey, err)
		}
	}
	return nil
}

// applyEvent brings the index to what an event tells, if that is above everything which is
// known of the record: its row, its tombstone, and the floor of its collection, at which
// every older change was seen. So events may be repeated, and may come before or after a
// reading that has seen what they tell.
func (r *repoRow) applyEvent(e Event, most int64, t *Told) error {
	if floor := r.repo.Collections[e.Collection].Floor; floor != "" && e.Rev <= floor {
		t.Contained++
		return nil
	}
	b, err := r.g.collection(e.Collection, true)
	if err != nil {
		return err
	}
	if r.rid != 0 {
		known, err := r.knownAt(b, e)
		switch {
		case err != nil:
			return err
		case known == disputed:
			t.Disputed++
			return nil
		case known == contained:
			t.Contained++
			return nil
		}
	}
	if e.Body == nil {
		return r.deleteAt(b, e, most, t)
	}
	return r.putAt(b, e, most, t)
}

// knowledge is what an event is to what is known of its record.
type knowledge int

const (
	newer knowledge = iota
	contained
	disputed
)

// knownAt compares an event with the record's row and tombstone.
func (r *repoRow) knownAt(b *collectionBuckets, e Event) (knowledge, error) {
	key, rev := recordKey(r.rid, e.RKey), e.Rev.Integer()
	stone, dead, err := b.tombstone(key)
	if err != nil {
		return newer, err
	}
	if dead && rev <= stone.rev {
		if rev == stone.rev && e.Body != nil {
			return disputed, nil
		}
		return contained, nil
	}
	old := b.records.Get(key)
	if old == nil {
		return newer, nil
	}
	row, err := parseRecordRow(key, old)
	if err != nil || rev > row.rev() {
		return newer, err
	}
	same := e.Body != nil && bytes.Equal(row.cid(), e.Body.CID.Bytes())
	if rev == row.rev() && row.source() == SourceLive && !same {
		return disputed, nil
	}
	return contained, nil
}

// putAt puts the record of an event.
func (r *repoRow) putAt(b *collectionBuckets, e Event, most int64, t *Told) error {
	p, err := r.place(b, e.Collection, Listed{RKey: e.RKey, Body: *e.Body}, e.Rev, SourceLive)
	if err != nil {
		return err
	}
	growth := p.growth()
	if _, had := r.repo.Collections[e.Collection]; !had {
		growth += collectionBytes(e.Collection)
	}
	if growth > 0 && r.repo.Bytes+growth > most {
		t.Full++
		return nil
	}
	if p.result == unchanged {
		t.Raised++
		return r.raise(b, p.key, e.Rev)
	}
	t.Applied++
	if err := r.number(); err != nil {
		return err
	}
	p.key = recordKey(r.rid, e.RKey) // it may have had no number before
	return r.write(b, e.Collection, e.RKey, e.Rev, p)
}

// raise writes the rev of an event into the row of a record that it does not change. Else
// a listing that was begun before the event, and has not found the record, would delete it.
// Its place in the order of changes stays.
func (r *repoRow) raise(b *collectionBuckets, key []byte, rev syntax.TID) error {
	old := b.records.Get(key)
	row, err := parseRecordRow(key, old)
	if err != nil {
		return err
	}
	next := row.withRev(key, rev)
	r.repo.Bytes += int64(len(next) - len(old)) // an old row has no seal
	return b.records.Put(key, next)
}

// deleteAt deletes the record of an event, and leaves a tombstone.
func (r *repoRow) deleteAt(b *collectionBuckets, e Event, most int64, t *Told) error {
	key := recordKey(r.rid, e.RKey)
	if r.repo.Collections[e.Collection].Tombstones >= maxTombstones {
		t.Full++
		return nil
	}
	if r.rid == 0 || b.records.Get(key) == nil {
		more := deletionBytes(deletionHead+len(key)) + tombstoneBytes(len(key))
		if _, had := r.repo.Collections[e.Collection]; !had {
			more += collectionBytes(e.Collection)
		}
		if r.repo.Bytes+more > most {
			t.Full++
			return nil
		}
	}
	if err := r.number(); err != nil {
		return err
	}
	key = recordKey(r.rid, e.RKey)
	seq, err := r.deleteRow(b, e.Collection, key, e.Rev)
	if err != nil {
		return err
	}
	t.Applied++
	return r.putTombstone(b, e.Collection, key, tombstone{rev: e.Rev.Integer(), seq: seq})
}
