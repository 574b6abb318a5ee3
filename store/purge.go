package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/internal/api"
)

// ErrNoFilter says that a deletion names neither a collection nor a DID.
var ErrNoFilter = errors.New("name a collection or a did")

// purgeStep bounds the records deleted in one transaction.
const purgeStep = 2_000

// purgeRow is a deletion that was asked for and is not done yet.
type purgeRow struct {
	Filter     Filter      `json:"filter"`
	Seq        uint64      `json:"seq"`                 // the last change before it was asked for: what is newer stays
	Collection syntax.NSID `json:"collection,omitzero"` // where to go on
	After      []byte      `json:"after,omitempty"`     // record key
	Deleted    int64       `json:"deleted"`
	Actor      *Actor      `json:"actor,omitempty"` // whose action it is, if the audit log has it
}

var purges = table[purgeRow]{name: "purges", version: 1, fill: fillAppend}

// DeleteRecords deletes the records that the filter chooses and that are there
// when it is called, and returns how many there were. It works in bounded steps,
// with what is left to do on disk: should the process end in between, Run goes on
// with it.
func (s *Store) DeleteRecords(ctx context.Context, filter Filter) (deleted int64, err error) {
	if filter == (Filter{}) {
		return 0, fmt.Errorf("delete records: %w", ErrNoFilter)
	}
	var id []byte
	err = s.do(ctx, "delete records", func(g *group) error {
		var err error
		if id, err = g.addPurge(filter, actorIn(ctx)); err != nil {
			return err
		}
		return g.note(ctx, Event{Action: api.ActDeleteRecords, Target: filter.String(), Outcome: api.OutcomeBegun})
	})
	if err != nil {
		return 0, err
	}
	return s.purge(ctx, id)
}

// addPurge notes that what the filter chooses is to be deleted: it is done whatever
// happens. purge does it, in as many transactions as it takes.
func (g *group) addPurge(filter Filter, by *Actor) (id []byte, err error) {
	g.purgesRead, g.purges = false, nil
	if filter.DID == "" {
		if err := g.forgetFreshness(filter.Collection); err != nil {
			return nil, err
		}
	}
	b := purges.bucket(g.tx)
	n, err := b.NextSequence()
	if err != nil {
		return nil, err
	}
	return u64Key(n), purges.put(b, u64Key(n), purgeRow{Filter: filter, Seq: g.nextSeq - 1, Actor: by})
}

// purge works on one deletion until it is done.
func (s *Store) purge(ctx context.Context, id []byte) (int64, error) {
	for {
		var (
			row  purgeRow
			done bool
		)
		err := s.wait(ctx, change{op: "delete records", urgent: true, apply: func(g *group) error {
			b := purges.bucket(g.tx)
			p, err := purges.get(b, id)
			if errors.Is(err, ErrNotFound) {
				done = true // somebody else has done it
				return nil
			}
			if err != nil {
				return err
			}
			if done, err = g.purge(&p); err != nil {
				return err
			}
			row = p
			if !done {
				return purges.put(b, id, p)
			}
			if err := b.Delete(id); err != nil || p.Actor == nil {
				return err
			}
			return g.noteOf(*p.Actor, Event{
				Action: api.ActDeleteRecords, Target: p.Filter.String(), Detail: fmt.Sprintf("%d records deleted", p.Deleted),
			})
		}})
		if err != nil {
			return 0, err
		}
		if done {
			return row.Deleted, nil
		}
	}
}

// openPurges lists the deletions that an earlier process has left.
func openPurges(tx *bbolt.Tx) (ids [][]byte, err error) {
	err = purges.bucket(tx).ForEach(func(k, _ []byte) error {
		ids = append(ids, bytes.Clone(k))
		return nil
	})
	return ids, err
}

// resumePurges goes on with the deletions that an earlier process has left.
func (s *Store) resumePurges(ctx context.Context) error {
	for _, id := range s.purges {
		if _, err := s.purge(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// purge does one step of a deletion, and reports whether it was the last.
func (g *group) purge(p *purgeRow) (done bool, err error) {
	names := []string{string(p.Filter.Collection)}
	if p.Filter.Collection == "" {
		names = collectionNames(g.tx)
	}
	prefix := []byte(nil)
	if p.Filter.DID != "" {
		n, account, err := accountOf(g.tx, p.Filter.DID)
		if err != nil || account == "" {
			return true, err
		}
		prefix = ridKey(n)
	}
	left := g.bound(purgeStep)
	for _, name := range names {
		c := syntax.NSID(name)
		if c < p.Collection {
			continue
		}
		if c != p.Collection {
			p.Collection, p.After = c, nil
		}
		if err := g.purgeCollection(p, prefix, &left); err != nil {
			return false, err
		}
		if left == 0 {
			return false, nil
		}
	}
	return true, nil
}

// purgeCollection looks at up to left records of p.Collection behind p.After.
func (g *group) purgeCollection(p *purgeRow, prefix []byte, left *int) error {
	records := recordsOf(g.tx, p.Collection)
	if records == nil {
		return nil
	}
	var keys [][]byte
	c := records.Cursor()
	for k, v := c.Seek(slices.MaxFunc([][]byte{prefix, p.After}, bytes.Compare)); bytes.HasPrefix(k, prefix) && k != nil && *left > 0; k, v = c.Next() {
		if bytes.Equal(k, p.After) {
			continue
		}
		*left--
		row, err := parseRecordRow(k, v)
		if err != nil {
			return fmt.Errorf("record %s %x: %w", p.Collection, k, err)
		}
		p.After = bytes.Clone(k)
		if row.seq() <= p.Seq {
			keys = append(keys, p.After)
		}
	}
	var repo *repoRow
	for _, k := range keys {
		n, rkey, ok := splitRecordKey(k)
		if !ok {
			return fmt.Errorf("%w: record key %x of %s", errRow, k, p.Collection)
		}
		if repo == nil || repo.rid != n {
			if err := repo.saveIfAny(); err != nil {
				return err
			}
			owner, err := repos.get(repos.bucket(g.tx), ridKey(n))
			if err != nil {
				return err
			}
			if repo, err = g.repo(owner.DID); err != nil {
				return err
			}
		}
		if _, err := repo.remove(p.Collection, rkey, lastRev); err != nil {
			return err
		}
		p.Deleted++
	}
	return repo.saveIfAny()
}

// coveredByPendingDelete reports whether a deletion that is not done yet has still to
// come to a record that was changed last as number seq. A job that finds such a record unchanged must
// write it anew, or the deletion would take it although it came after the deletion.
func (g *group) coveredByPendingDelete(did syntax.DID, collection syntax.NSID, seq uint64) (bool, error) {
	pending, err := g.pendingPurges()
	return slices.ContainsFunc(pending, func(p purgeRow) bool { return seq <= p.Seq && p.takes(did, collection) }), err
}

// takes tells whether a deletion is about a collection of a repo.
func (p purgeRow) takes(did syntax.DID, collection syntax.NSID) bool {
	return (p.Filter.Collection == "" || p.Filter.Collection == collection) && (p.Filter.DID == "" || p.Filter.DID == did)
}

// pendingPurges are the deletions that are not done yet, read once for a group.
func (g *group) pendingPurges() (list []purgeRow, err error) {
	if !g.purgesRead {
		if g.purges, err = pendingPurges(g.tx); err != nil {
			return nil, err
		}
		g.purgesRead = true
	}
	return g.purges, nil
}

func pendingPurges(tx *bbolt.Tx) (list []purgeRow, err error) {
	err = purges.bucket(tx).ForEach(func(k, row []byte) error {
		p, err := purges.decode(k, row)
		if err != nil {
			return fmt.Errorf("deletion %x: %w", k, err)
		}
		list = append(list, p)
		return nil
	})
	return list, err
}

func (r *repoRow) saveIfAny() error {
	if r == nil {
		return nil
	}
	return r.save()
}
