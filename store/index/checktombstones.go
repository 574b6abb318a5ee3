package index

import (
	"context"
	"encoding/binary"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// tombstones checks that each stands beside its deletion, and in no record's place, and
// sizes them.
func (c *checker) tombstones(ctx context.Context) error {
	return c.tx.Bucket([]byte(tombstonesBucket)).ForEachBucket(func(name []byte) error {
		records, deletions := recordsOf(c.tx, syntax.NSID(name)), c.tx.Bucket([]byte(deletionsBucket)).Bucket(name)
		if records == nil || deletions == nil {
			c.found("tombstones of %s: there is no such collection", name)
			return nil
		}
		c.dead[syntax.NSID(name)] = map[rid]int64{}
		return tombstonesOf(c.tx, name).ForEach(func(k, row []byte) error {
			c.tombstone(name, k, row, records, deletions)
			return ctx.Err()
		})
	})
}

func (c *checker) tombstone(name, k, row []byte, records, deletions *kv.Bucket) {
	id, rkey, ok := splitRecordKey(k)
	t, err := parseTombstone(k, row)
	if !ok || err != nil {
		c.found("tombstones of %s: %x: %w", name, k, err)
		return
	}
	c.sizes[id] += tombstoneBytes(len(k))
	c.dead[syntax.NSID(name)][id]++
	if _, ok := c.repos[id]; !ok {
		c.found("tombstone of %s/%d/%s: no such repo", name, id, rkey)
	}
	if records.Get(k) != nil {
		c.found("tombstone of %s/%d/%s: the record is held", name, id, rkey)
	}
	note := deletions.Get(kv.NumberKey(t.seq))
	if len(note) <= deletionHead || string(note[deletionHead:]) != string(k) || binary.BigEndian.Uint64(note[8:]) != t.rev {
		c.found("tombstone of %s/%d/%s: deletion %d is not its own", name, id, rkey, t.seq)
	}
}
