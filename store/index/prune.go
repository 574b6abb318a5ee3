package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// keepDeletions is how long notes of deleted records are kept.
const keepDeletions = 30 * 24 * time.Hour

// oldDeletion is a row of deletions that is too old.
type oldDeletion struct {
	key   []byte // of the record
	seq   uint64
	bytes int64 // that it took
}

// prune deletes notes of deletions that are too old, with their tombstones.
func prune(tx *kv.Tx, left *int) error {
	g, err := groups.In(tx)
	if err != nil {
		return err
	}
	for _, name := range collectionNames(tx) {
		if *left == 0 {
			return nil
		}
		old, err := pruneDeletions(tx, name, left)
		if err == nil {
			err = g.forgetDeletions(syntax.NSID(name), old)
		}
		if err != nil {
			return fmt.Errorf("prune deletions of %s: %w", name, err)
		}
	}
	return nil
}

// pruneDeletions deletes those of a collection, and lists them.
func pruneDeletions(tx *kv.Tx, name string, left *int) (list []oldDeletion, err error) {
	b := tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
	if b == nil {
		return nil, nil
	}
	at, err := watermark(tx, []byte(name))
	if err != nil {
		return nil, err
	}
	limit := tx.Steady.Add(-keepDeletions).Unix()
	err = kv.DeleteFirst(b, left, func(k, row []byte) bool {
		// The key index learns from them what it has to take out.
		old := len(row) > deletionHead+ridLen && int64(binary.BigEndian.Uint64(row)) < limit && binary.BigEndian.Uint64(k) <= at
		if old {
			list = append(list, oldDeletion{key: bytes.Clone(row[deletionHead:]), seq: binary.BigEndian.Uint64(k), bytes: deletionBytes(len(row))})
		}
		return old
	})
	return list, err
}

// forgetDeletions gives repos back what rows of deletions took that were deleted.
func (g *group) forgetDeletions(c syntax.NSID, list []oldDeletion) error {
	slices.SortFunc(list, func(x, y oldDeletion) int { return bytes.Compare(x.key, y.key) })
	for len(list) > 0 {
		id := list[0].key[:ridLen]
		row, err := repos.Get(repos.Bucket(g.tx), id)
		if err != nil {
			return fmt.Errorf("repo %x: %w", id, err)
		}
		r, err := g.repo(row.DID)
		if err != nil {
			return err
		}
		for ; len(list) > 0 && bytes.HasPrefix(list[0].key, id); list = list[1:] {
			if err := r.forgetDeletion(c, list[0]); err != nil {
				return err
			}
		}
		if err := r.save(); err != nil {
			return err
		}
	}
	return nil
}
