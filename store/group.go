package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// group is one transaction of the writer, with the rows that many changes touch.
// They live no longer than the transaction.
type group struct {
	in     *kv.Tx
	tx     *bbolt.Tx // of in
	now    time.Time // by the wall clock, for users
	steady time.Time // by the store's own, for what is kept for a while

	nextRID, nextSeq uint64
	jobs             map[uint64]*Job
	counted          map[uint64]counted // of jobs, before the group changed them
	counts           map[syntax.NSID]*Count
	collections      map[syntax.NSID]*collectionBuckets
	work             map[uint64]*workBuckets
	purges           []purgeRow // not done yet, once they were asked for
	purgesRead       bool
}

// groups are the groups of transactions.
var groups = kv.Local[group]{Begin: newGroup, Save: (*group).save}

func newGroup(tx *kv.Tx) (*group, error) {
	g := &group{
		in: tx, tx: tx.Tx, now: tx.Now, steady: tx.Steady,
		jobs: map[uint64]*Job{}, counted: map[uint64]counted{}, counts: map[syntax.NSID]*Count{},
		collections: map[syntax.NSID]*collectionBuckets{}, work: map[uint64]*workBuckets{},
	}
	var errRID, errSeq error
	g.nextRID, errRID = tx.Meta(metaNextRID)
	g.nextSeq, errSeq = tx.Meta(metaNextSeq)
	return g, errors.Join(errRID, errSeq)
}

// bound is how many rows the transaction may deal with, usually so many.
func (g *group) bound(usual int) int { return g.in.Bound(usual) }

// job returns the row of a job for change; it is written when the group ends.
func (g *group) job(seq uint64) (*Job, error) {
	if j := g.jobs[seq]; j != nil {
		return j, nil
	}
	j, err := jobs.get(jobs.bucket(g.tx), u64Key(seq))
	if errors.Is(err, ErrNotFound) {
		return nil, refuse(fmt.Errorf("job %d: %w", seq, ErrNotFound))
	}
	if err != nil {
		return nil, err
	}
	g.jobs[seq], g.counted[seq] = &j, countedOf(&j)
	return &j, nil
}

// seq is the next number of the one global order of changes.
func (g *group) seq() uint64 {
	g.nextSeq++
	return g.nextSeq - 1
}

// save writes the rows that the group has gathered.
func (g *group) save() error {
	err := errors.Join(g.in.PutMeta(metaNextRID, g.nextRID), g.in.PutMeta(metaNextSeq, g.nextSeq), g.saveTotals())
	for _, seq := range slices.Sorted(maps.Keys(g.jobs)) {
		j := g.jobs[seq]
		err = errors.Join(err, jobs.put(jobs.bucket(g.tx), u64Key(seq), *j), g.keepUnfinished(j))
	}
	for _, w := range g.work {
		for host, h := range w.changed {
			err = errors.Join(err, hostRows.put(w.hosts, []byte(host), *h))
		}
	}
	for collection, n := range g.counts {
		err = errors.Join(err, counts.put(counts.bucket(g.tx), []byte(collection), *n))
	}
	return err
}

// change is a change of a group, made whole in one transaction: see kv.Change.
type change struct {
	op     string // what it does, for errors
	apply  func(*group) error
	urgent bool // commit at once
	admin  bool // a user waits for it: refuse it while the disk is full, unless
	ends   bool // it ends work: make it even then, it takes next to no room
	bytes  int
	done   func(error) // told the outcome after the commit; must not wait for anything
}

func (c change) kv() kv.Change {
	return kv.Change{
		Op: c.op, Bytes: c.bytes, Done: c.done, Urgent: c.urgent, Interactive: c.admin, EndsWork: c.ends,
		Apply: func(tx *kv.Tx) error {
			g, err := groups.In(tx)
			if err != nil {
				return err
			}
			return c.apply(g)
		},
	}
}

// do applies a change, commits it at once and returns when that is done. It does
// not return early when ctx ends, since the change may still be committed.
func (s *Store) do(ctx context.Context, op string, apply func(*group) error) error {
	return s.wait(ctx, change{op: op, apply: apply, urgent: true, admin: true})
}

// wait submits a change and waits until it is committed: see kv.DB.Do.
func (s *Store) wait(ctx context.Context, c change) error { return s.db.Do(ctx, c.kv()) }

// submit queues a change: see kv.DB.Submit.
func (s *Store) submit(ctx context.Context, c change) error { return s.db.Submit(ctx, c.kv()) }

// view runs f in a read transaction: see kv.DB.View.
func (s *Store) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	return s.db.View(ctx, func(tx *kv.Tx) error { return f(tx.Tx) })
}

// read is view with a result.
func read[T any](ctx context.Context, s *Store, f func(*bbolt.Tx) (T, error)) (T, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (T, error) { return f(tx.Tx) })
}

// errRow, errAgain and the functions below are kv's.
var (
	errRow   = kv.ErrRow
	errAgain = kv.ErrAgain
)

// Lengths of rows, and fill of pages.
const (
	sealLen    = kv.SealLen
	maxRowLen  = kv.MaxRowLen
	fillAppend = kv.FillAppend
	fillSorted = kv.FillSorted
	fillSpread = kv.FillSpread
)

func refuse(err error) error                               { return kv.Refuse(err) }
func appendSeal(key, row []byte) []byte                    { return kv.Seal(key, row) }
func unsealed(key, row []byte) ([]byte, bool)              { return kv.Unseal(key, row) }
func seekBefore(c *bbolt.Cursor, end []byte) (k, v []byte) { return kv.SeekBefore(c, end) }

// metaOf is a number of the bucket meta.
func metaOf(tx *bbolt.Tx, name string) (uint64, error) { return (&kv.Tx{Tx: tx}).Meta(name) }

// table is a kind of row: see kv.Table.
type table[V any] struct {
	name    string
	version byte
	fill    float64
}

func (t table[V]) kv() kv.Table[V] {
	return kv.Table[V]{Name: t.name, Version: t.version, Fill: t.fill}
}

func (t table[V]) bucket(tx *bbolt.Tx) *bbolt.Bucket {
	b := tx.Bucket([]byte(t.name))
	b.FillPercent = t.fill
	return b
}

func (t table[V]) get(b *bbolt.Bucket, key []byte) (V, error) { return t.kv().Get(b, key) }
func (t table[V]) put(b *bbolt.Bucket, key []byte, v V) error { return t.kv().Put(b, key, v) }
func (t table[V]) encode(key []byte, v V) ([]byte, error)     { return t.kv().Encode(key, v) }
func (t table[V]) decode(key, row []byte) (V, error)          { return t.kv().Decode(key, row) }
func (t table[V]) eachKey(b *bbolt.Bucket, f func(k []byte) error) error {
	return t.kv().EachKey(b, f)
}
