package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"appview/store/kv"
)

// keepDeletions is how long notes of deleted records are kept.
const keepDeletions = 30 * 24 * time.Hour

// prune deletes notes of deletions that are too old.
func prune(tx *kv.Tx, left *int) error {
	g, err := groups.In(tx)
	if err != nil {
		return err
	}
	limit := tx.Steady.Add(-keepDeletions).Unix()
	freed := map[rid]int64{}
	var failed error
	for _, name := range collectionNames(tx) {
		b := tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
		if b == nil || *left == 0 {
			continue
		}
		at, err := watermark(tx, []byte(name))
		if err != nil {
			return err
		}
		if err := kv.DeleteFirst(b, left, func(k, row []byte) bool {
			// The key index learns from them what it has to take out.
			old := len(row) > deletionHead+ridLen && int64(binary.BigEndian.Uint64(row)) < limit && binary.BigEndian.Uint64(k) <= at
			if old {
				bytes, err := forgetTombstone(tx, []byte(name), row[deletionHead:], binary.BigEndian.Uint64(k))
				failed = errors.Join(failed, err)
				freed[rid(binary.BigEndian.Uint32(row[deletionHead:]))] += deletionBytes(len(row)) + bytes
			}
			return old
		}); err != nil {
			return fmt.Errorf("prune deletions of %s: %w", name, err)
		}
		if failed != nil {
			return fmt.Errorf("prune tombstones of %s: %w", name, failed)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(freed)) {
		if err := g.giveBack(n, freed[n]); err != nil {
			return fmt.Errorf("prune deletions: %w", err)
		}
	}
	return nil
}
