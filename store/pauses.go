package store

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// pauses holds what the network is to know over a restart of the hosts that are to be
// left alone. What is in a row is the network's.
var pauses = table[json.RawMessage]{name: "pauses", version: 1, fill: fillSpread}

// addPauses makes their bucket.
func addPauses(tx *bbolt.Tx) error {
	_, err := tx.CreateBucketIfNotExists([]byte(pauses.name))
	return err
}

// Pauses returns what is known of the hosts that were to be left alone.
func (s *Store) Pauses(ctx context.Context) (rows map[string][]byte, err error) {
	rows = map[string][]byte{}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return pauses.bucket(tx).ForEach(func(k, row []byte) error {
			v, err := pauses.decode(k, row)
			if err != nil {
				return fmt.Errorf("pause of %s: %w", k, err)
			}
			rows[string(k)] = v
			return nil
		})
	})
	return rows, err
}

// PutPauses notes what is known of hosts now, as JSON; nothing of one that need not be
// left alone any more. Rows are few and small: they are written to a full disk too.
func (s *Store) PutPauses(ctx context.Context, rows map[string][]byte) error {
	size := 0
	for _, row := range rows {
		size += rowBytes + len(row)
	}
	return s.wait(ctx, change{op: "note pauses of hosts", bytes: size, ends: true, apply: func(g *group) error {
		b := pauses.bucket(g.tx)
		for host, row := range rows {
			if row == nil {
				if err := b.Delete([]byte(host)); err != nil {
					return err
				}
				continue
			}
			if err := pauses.put(b, []byte(host), row); err != nil {
				return err
			}
		}
		return nil
	}})
}
