package store

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// ErrNotFound says that there is no row under the key that was asked for.
var ErrNotFound = errors.New("not found")

// errRow marks a row of our own file that cannot be what we wrote. It is never
// the fault of a user or of the network: whoever meets it stops.
var errRow = fmt.Errorf("%w: a row is not as it was written", ErrDamaged)

// table is a kind of versioned JSON row of type V. Most tables are one bucket at
// the top of the file; those of a job's work are given their bucket.
type table[V any] struct {
	name    string
	version byte    // first byte of every row; raising it needs a migration
	fill    float64 // how full bbolt leaves the pages that it splits
}

func (t table[V]) bucket(tx *bbolt.Tx) *bbolt.Bucket {
	b := tx.Bucket([]byte(t.name))
	b.FillPercent = t.fill
	return b
}

func (t table[V]) get(b *bbolt.Bucket, key []byte) (v V, err error) {
	row := b.Get(key)
	if row == nil {
		return v, fmt.Errorf("%s %q: %w", t.name, key, ErrNotFound)
	}
	if v, err = t.decode(row); err != nil {
		return v, fmt.Errorf("%s %q: %w", t.name, key, err)
	}
	return v, nil
}

func (t table[V]) put(b *bbolt.Bucket, key []byte, v V) error {
	row, err := t.encode(v)
	if err != nil {
		return fmt.Errorf("%s %q: encode: %w", t.name, key, err)
	}
	if err := b.Put(key, row); err != nil {
		return fmt.Errorf("%s %q: put: %w", t.name, key, err)
	}
	return nil
}

func (t table[V]) encode(v V) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte{t.version}, body...), nil
}

// decode copies: row is bbolt's memory and dies with the transaction.
func (t table[V]) decode(row []byte) (v V, err error) {
	if len(row) == 0 || len(row) > maxPageLen || row[0] != t.version {
		return v, fmt.Errorf("%w: not version %d: % x", errRow, t.version, row[:min(len(row), 1)])
	}
	if err := json.Unmarshal(row[1:], &v); err != nil {
		return v, fmt.Errorf("%w: %w", errRow, err)
	}
	return v, nil
}
