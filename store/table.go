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

// sealedRow is what the first byte of a sealed row has beside the version of its table.
// Rows without it were written before there were seals.
const sealedRow byte = 0xc0

// table is a kind of versioned JSON row of type V, sealed with its key. Most tables are
// one bucket at the top of the file; those of a job's work are given their bucket.
type table[V any] struct {
	name    string
	version byte    // of every row, in its first byte; raising it needs a migration
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
	if v, err = t.decode(key, row); err != nil {
		return v, fmt.Errorf("%s %q: %w", t.name, key, err)
	}
	return v, nil
}

func (t table[V]) put(b *bbolt.Bucket, key []byte, v V) error {
	row, err := t.encode(key, v)
	if err != nil {
		return fmt.Errorf("%s %q: encode: %w", t.name, key, err)
	}
	if err := b.Put(key, row); err != nil {
		return fmt.Errorf("%s %q: put: %w", t.name, key, err)
	}
	return nil
}

func (t table[V]) encode(key []byte, v V) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	row := make([]byte, 0, 1+len(body)+sealLen)
	row = append(row, t.version|sealedRow)
	return appendSeal(key, append(row, body...)), nil
}

// body is the JSON of the row under key, which is as it was written, as far as it says.
func (t table[V]) body(key, row []byte) ([]byte, error) {
	switch {
	case len(row) == 0 || len(row) > maxPageLen:
		return nil, fmt.Errorf("%w: %d bytes", errRow, len(row))
	case row[0] == t.version:
		return row[1:], nil
	case row[0] != t.version|sealedRow:
		return nil, fmt.Errorf("%w: not version %d: %x", errRow, t.version, row[0])
	}
	row, fits := unsealed(key, row)
	if !fits || len(row) == 0 {
		return nil, fmt.Errorf("%w: its checksum does not fit", errRow)
	}
	return row[1:], nil
}

// eachKey calls f with the key of every row. The rows are not decoded, and are as they
// were written, as far as they say.
func (t table[V]) eachKey(b *bbolt.Bucket, f func(key []byte) error) error {
	return b.ForEach(func(k, row []byte) error {
		if _, err := t.body(k, row); err != nil {
			return fmt.Errorf("%s %q: %w", t.name, k, err)
		}
		return f(k)
	})
}

// decode copies: row is bbolt's memory and dies with the transaction.
func (t table[V]) decode(key, row []byte) (v V, err error) {
	body, err := t.body(key, row)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("%w: %w", errRow, err)
	}
	return v, nil
}
