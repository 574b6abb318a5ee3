package index

import (
	"context"
	"errors"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// group is one transaction of the writer, with the rows that many changes touch.
// They live no longer than the transaction.
type group struct {
	tx *kv.Tx

	nextRID, nextSeq uint64
	counts           map[syntax.NSID]*Count
	collections      map[syntax.NSID]*collectionBuckets
	purges           []purgeRow // not done yet, once they were asked for
	purgesRead       bool
}

// groups are the groups of transactions.
var groups = kv.Local[group]{Begin: newGroup, Save: (*group).save}

func newGroup(tx *kv.Tx) (*group, error) {
	g := &group{tx: tx, counts: map[syntax.NSID]*Count{}, collections: map[syntax.NSID]*collectionBuckets{}}
	var errRID, errSeq error
	g.nextRID, errRID = tx.Meta(metaNextRID)
	g.nextSeq, errSeq = tx.Meta(metaNextSeq)
	return g, errors.Join(errRID, errSeq)
}

// seq is the next number of the one global order of changes.
func (g *group) seq() uint64 {
	g.nextSeq++
	return g.nextSeq - 1
}

// save writes the rows that the group has gathered.
func (g *group) save() error {
	err := errors.Join(g.tx.PutMeta(metaNextRID, g.nextRID), g.tx.PutMeta(metaNextSeq, g.nextSeq))
	for collection, n := range g.counts {
		err = errors.Join(err, counts.Put(counts.Bucket(g.tx), []byte(collection), *n))
	}
	return err
}

// write makes a change that commits at once, and returns its result when it is committed.
func write[T any](ctx context.Context, x *Index, op string, apply func(*group) (T, error)) (T, error) {
	return kv.Write(ctx, x.db, kv.Change{Op: op, Urgent: true}, inGroup(apply))
}

// writeInteractive is write for a change that a user waits for: it does not return early when
// ctx ends, since the change may still be committed.
func writeInteractive[T any](ctx context.Context, x *Index, op string, apply func(*group) (T, error)) (T, error) {
	return kv.Write(ctx, x.db, kv.Change{Op: op, Urgent: true, Interactive: true}, inGroup(apply))
}

func inGroup[T any](apply func(*group) (T, error)) func(*kv.Tx) (T, error) {
	return func(tx *kv.Tx) (T, error) {
		g, err := groups.In(tx)
		if err != nil {
			var none T
			return none, err
		}
		return apply(g)
	}
}
