package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

// purgeStep bounds the records deleted in one transaction.
const purgeStep = 2_000

// purgeRow is a deletion that was asked for and is not done yet.
type purgeRow struct {
	Filter     Filter       `json:"filter"`
	Seq        uint64       `json:"seq"`                 // the last change before it was asked for: what is newer stays
	Collection syntax.NSID  `json:"collection,omitzero"` // where to go on
	After      []byte       `json:"after,omitempty"`     // record key
	Deleted    int64        `json:"deleted"`
	Actor      *admin.Actor `json:"actor,omitempty"` // whose action it is, if the audit log has it
}

var purges = kv.Table[purgeRow]{Name: "purges", Version: 1, Fill: kv.FillAppend}

// BeginDelete notes that the records which a filter chooses, and which are there now, are
// to be deleted: it is done whatever happens. FinishDelete does it.
func BeginDelete(tx *kv.Tx, filter Filter, by *admin.Actor) (id []byte, err error) {
	g, err := groups.In(tx)
	if err != nil {
		return nil, err
	}
	g.purgesRead, g.purges = false, nil
	b := purges.Bucket(tx)
	n, err := b.NextSequence()
	if err != nil {
		return nil, err
	}
	return kv.NumberKey(n), purges.Put(b, kv.NumberKey(n), purgeRow{Filter: filter, Seq: g.nextSeq - 1, Actor: by})
}

// FinishDelete works on a deletion that was begun until it is done, in bounded steps, and
// returns how many records it has deleted. Should the process end in between, Resume goes
// on with it.
func (x *Index) FinishDelete(ctx context.Context, id []byte) (int64, error) {
	for {
		step, err := write(ctx, x, "delete records", func(g *group) (deleteStep, error) { return x.deleteSome(g, id) })
		if err != nil {
			return 0, err
		}
		if step.done {
			return step.deleted, nil
		}
	}
}

// deleteStep is what a step of a deletion has come to.
type deleteStep struct {
	deleted int64 // with all steps before
	done    bool
}

func (x *Index) deleteSome(g *group, id []byte) (deleteStep, error) {
	b := purges.Bucket(g.tx)
	p, err := purges.Get(b, id)
	if errors.Is(err, kv.ErrNotFound) {
		return deleteStep{done: true}, nil // somebody else has done it
	}
	if err != nil {
		return deleteStep{}, err
	}
	done, err := x.purge(g, &p)
	if err != nil {
		return deleteStep{}, err
	}
	step := deleteStep{deleted: p.Deleted, done: done}
	if !done {
		return step, purges.Put(b, id, p)
	}
	if err := b.Delete(id); err != nil || p.Actor == nil {
		return step, err
	}
	return step, admin.NoteOf(g.tx, *p.Actor, admin.Event{
		Action: api.ActDeleteRecords, Target: p.Filter.String(), Detail: fmt.Sprintf("%d records deleted", p.Deleted),
	})
}

// openPurges lists the deletions that an earlier process has left.
func openPurges(tx *kv.Tx) (ids [][]byte, err error) {
	err = purges.Bucket(tx).ForEach(func(k, _ []byte) error {
		ids = append(ids, bytes.Clone(k))
		return nil
	})
	return ids, err
}

// purge does one step of a deletion, and reports whether it was the last.
func (x *Index) purge(g *group, p *purgeRow) (done bool, err error) {
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
	left := g.tx.Bound(purgeStep)
	for _, name := range names {
		c := syntax.NSID(name)
		if c < p.Collection {
			continue
		}
		if c != p.Collection {
			p.Collection, p.After = c, nil
		}
		if err := x.purgeCollection(g, p, prefix, &left); err != nil {
			return false, err
		}
		if left == 0 {
			return false, nil
		}
	}
	return true, nil
}

// purgeCollection looks at up to left records of p.Collection behind p.After.
func (x *Index) purgeCollection(g *group, p *purgeRow, prefix []byte, left *int) error {
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
	for len(keys) > 0 {
		var err error
		if keys, err = x.purgeRepo(g, p, keys); err != nil {
			return err
		}
	}
	return nil
}

// purgeRepo deletes those records at the beginning of a list that are of one repo, and
// returns the others.
func (x *Index) purgeRepo(g *group, p *purgeRow, keys [][]byte) (rest [][]byte, err error) {
	var (
		of    rid
		rkeys []syntax.RecordKey
	)
	for rest = keys; len(rest) > 0; rest = rest[1:] {
		n, rkey, ok := splitRecordKey(rest[0])
		if !ok {
			return nil, fmt.Errorf("%w: record key %x of %s", kv.ErrRow, rest[0], p.Collection)
		}
		if of != 0 && n != of {
			break
		}
		of, rkeys = n, append(rkeys, rkey)
	}
	owner, err := repos.Get(repos.Bucket(g.tx), ridKey(of))
	if err != nil {
		return nil, err
	}
	a, err := x.Apply(g.tx, Change{DID: owner.DID, Delete: map[syntax.NSID][]syntax.RecordKey{p.Collection: rkeys}})
	p.Deleted += a.Tally.Deleted
	return rest, err
}

// coveredByPendingDelete reports whether a deletion that is not done yet has still to
// come to a record that was changed last as number seq. A job that finds such a record unchanged must
// write it anew, or the deletion would take it although it came after the deletion.
func (g *group) coveredByPendingDelete(did syntax.DID, collection syntax.NSID, seq uint64) (bool, error) {
	pending, err := g.pendingPurges()
	return slices.ContainsFunc(pending, func(p purgeRow) bool { return seq <= p.Seq && p.takes(did, collection) }), err
}

// takes reports whether a deletion is about a collection of a repo.
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

func pendingPurges(tx *kv.Tx) (list []purgeRow, err error) {
	err = purges.Bucket(tx).ForEach(func(k, row []byte) error {
		p, err := purges.Decode(k, row)
		if err != nil {
			return fmt.Errorf("deletion %x: %w", k, err)
		}
		list = append(list, p)
		return nil
	})
	return list, err
}
