package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	"appview/store/kv"
)

// pauses holds what the network is to know over a restart of the hosts that are to be
// left alone. What is in a row is the network's.
var pauses = kv.Table[json.RawMessage]{Name: "pauses", Version: 1, Fill: kv.FillSpread}

// Pauses returns what is known of the hosts that were to be left alone.
func (s *Work) Pauses(ctx context.Context) (map[string][]byte, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (map[string][]byte, error) {
		rows := map[string][]byte{}
		return rows, pauses.Bucket(tx).ForEach(func(k, row []byte) error {
			v, err := pauses.Decode(k, row)
			if err != nil {
				return fmt.Errorf("pause of %s: %w", k, err)
			}
			rows[string(k)] = v
			return nil
		})
	})
}

// PutPauses notes what is known of hosts now, as JSON; nothing of one that need not be
// left alone any more. Rows are few and small: they are written to a full disk too.
func (s *Work) PutPauses(ctx context.Context, rows map[string][]byte) error {
	size := 0
	for _, row := range rows {
		size += rowBytes + len(row)
	}
	return s.do(ctx, kv.Change{Op: "note pauses of hosts", Bytes: size, EndsWork: true}, func(g *group) error {
		b := pauses.Bucket(g.tx)
		for host, row := range rows {
			if row == nil {
				if err := b.Delete([]byte(host)); err != nil {
					return err
				}
				continue
			}
			if err := pauses.Put(b, []byte(host), row); err != nil {
				return err
			}
		}
		return nil
	})
}
