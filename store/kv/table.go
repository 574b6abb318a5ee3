package kv

import (
	"encoding/json"
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that there is no row under the key that was asked for.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is one already.
	ErrExists = errors.New("it is there already")
	// ErrTooMany says that there are as many as there may be.
	ErrTooMany = errors.New("that is as many as there may be")
)

// ErrRow marks a row of our own file that cannot be what we wrote. It is never
// the fault of a user or of the network: whoever meets it stops.
var ErrRow = fmt.Errorf("%w: a row is not as it was written", ErrDamaged)

// SealedRow is what the first byte of a sealed row has beside the version of its table.
// Rows without it were written before there were checksums.
const SealedRow byte = 0xc0

// Fill of pages: keys that grow never need room in the middle, spread ones do. Sorted
// ones come in runs, most of them higher than all before.
const (
	FillAppend = 0.98
	FillSorted = 0.9
	FillSpread = 0.7
)

// Table is a kind of versioned JSON row of type V, sealed with its key. Most tables are
// one bucket at the top of the file; others are given their bucket.
type Table[V any] struct {
	Name    string
	Version byte    // of every row, in its first byte; raising it needs a migration
	Fill    float64 // how full bbolt leaves the pages that it splits
}

// Bucket is the table's bucket at the top of the file.
func (t Table[V]) Bucket(tx *Tx) *Bucket {
	b := tx.Bucket([]byte(t.Name))
	b.FillPercent = t.Fill
	return b
}

// Get returns the row under key, or ErrNotFound.
func (t Table[V]) Get(b *Bucket, key []byte) (v V, err error) {
	row := b.Get(key)
	if row == nil {
		return v, fmt.Errorf("%s %q: %w", t.Name, key, ErrNotFound)
	}
	if v, err = t.Decode(key, row); err != nil {
		return v, fmt.Errorf("%s %q: %w", t.Name, key, err)
	}
	return v, nil
}

// Put writes the row under key.
func (t Table[V]) Put(b *Bucket, key []byte, v V) error {
	row, err := t.Encode(key, v)
	if err != nil {
		return fmt.Errorf("%s %q: encode: %w", t.Name, key, err)
	}
	if err := b.Put(key, row); err != nil {
		return fmt.Errorf("%s %q: put: %w", t.Name, key, err)
	}
	return nil
}

// Encode makes the row that is to stand under key.
func (t Table[V]) Encode(key []byte, v V) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	row := make([]byte, 0, 1+len(body)+SealLen)
	row = append(row, t.Version|SealedRow)
	return Seal(key, append(row, body...)), nil
}

// Body is the JSON of the row under key, which is as it was written, as far as it says.
func (t Table[V]) Body(key, row []byte) ([]byte, error) {
	switch {
	case len(row) == 0 || len(row) > MaxRowLen:
		return nil, fmt.Errorf("%w: %d bytes", ErrRow, len(row))
	case row[0] == t.Version:
		return row[1:], nil
	case row[0] != t.Version|SealedRow:
		return nil, fmt.Errorf("%w: not version %d: %x", ErrRow, t.Version, row[0])
	}
	row, fits := Unseal(key, row)
	if !fits || len(row) == 0 {
		return nil, fmt.Errorf("%w: its checksum does not fit", ErrRow)
	}
	return row[1:], nil
}

// EachKey calls f with the key of every row. The rows are not decoded, and are as they
// were written, as far as they say.
func (t Table[V]) EachKey(b *Bucket, f func(key []byte) error) error {
	return b.ForEach(func(k, row []byte) error {
		if _, err := t.Body(k, row); err != nil {
			return fmt.Errorf("%s %q: %w", t.Name, k, err)
		}
		return f(k)
	})
}

// Decode reads the row under key. It copies: row is bbolt's memory and dies with the
// transaction.
func (t Table[V]) Decode(key, row []byte) (v V, err error) {
	body, err := t.Body(key, row)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrRow, err)
	}
	return v, nil
}
