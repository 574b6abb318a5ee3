package index

import (
	"bytes"
	"context"
	"encoding/binary"

	"appview/store/kv"
)

// keyIndex checks every entry of the key index against its record, and that none is
// missing of those that the index contains by its watermark.
func (c *checker) keyIndex(ctx context.Context) error {
	for _, name := range collectionNames(c.tx) {
		at, err := watermark(c.tx, []byte(name))
		if err != nil {
			c.found("key index of %s: %w", name, err)
			continue
		}
		want, err := c.indexedUpTo(ctx, name, at)
		if err != nil {
			return err
		}
		late, err := c.deletedSince(ctx, name, at)
		if err != nil {
			return err
		}
		if next, err := c.tx.Meta(metaNextSeq); err == nil && at >= next {
			c.found("key index of %s: it contains change %d, the next is %d", name, at, next)
		}
		var got int
		if index := c.tx.Bucket([]byte(keyIndexBucket)).Bucket([]byte(name)); index != nil {
			if got, err = c.keysOf(ctx, name, index, at, late); err != nil {
				return err
			}
		}
		if got != want {
			c.found("key index of %s: %d of the %d records that it should contain", name, got, want)
		}
	}
	return nil
}

// indexedUpTo is how many records were changed last no later than the watermark.
func (c *checker) indexedUpTo(ctx context.Context, name string, at uint64) (n int, err error) {
	log := c.tx.Bucket([]byte(logBucket)).Bucket([]byte(name))
	if log == nil {
		return 0, nil // found already
	}
	cur := log.Cursor()
	for k, _ := cur.First(); k != nil && bytes.Compare(k, kv.NumberKey(at)) <= 0; k, _ = cur.Next() {
		n++
		if err := ctx.Err(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// deletedSince are the records that were deleted after the watermark: the index may
// still contain them.
func (c *checker) deletedSince(ctx context.Context, name string, at uint64) (map[string]bool, error) {
	late := map[string]bool{}
	deletions := c.tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
	if deletions == nil {
		return late, nil
	}
	err := deletions.ForEach(func(k, row []byte) error {
		switch {
		case len(k) != 8 || len(row) <= deletionHead+ridLen:
			c.found("deletion %x of %s: a row of %d bytes", k, name, len(row))
		case binary.BigEndian.Uint64(k) > at:
			late[string(row[deletionHead:])] = true
		}
		return ctx.Err()
	})
	return late, err
}

// keysOf counts the entries of a key index whose records were changed last no later
// than the watermark. Others may be there too, of a run that is not at its end.
func (c *checker) keysOf(ctx context.Context, name string, index *kv.Bucket, at uint64, late map[string]bool) (n int, err error) {
	records := c.tx.Bucket([]byte(recordsBucket)).Bucket([]byte(name))
	err = index.ForEach(func(k, _ []byte) error {
		key, err := indexed(nil, k)
		if err != nil {
			c.found("key index of %s: %w", name, err)
			return ctx.Err()
		}
		row, err := parseRecordRow(key, records.Get(key))
		switch {
		case err == nil && row.seq() <= at:
			n++
		case err != nil && !late[string(key)]:
			c.found("key index of %s: %x stands for no record", name, k)
		}
		return ctx.Err()
	})
	return n, err
}
