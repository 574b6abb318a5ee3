package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

type (
	// Bucket is bbolt's.
	Bucket = bbolt.Bucket
	// Cursor is bbolt's.
	Cursor = bbolt.Cursor
)

// MaxKeyLen is the longest that a key can be.
const MaxKeyLen = bbolt.MaxKeySize

// Tx is a transaction. What it gives is bbolt's memory, and dies with it.
type Tx struct {
	*bbolt.Tx

	Now    time.Time // of a transaction of the writer: by the wall clock, for users
	Steady time.Time // likewise: by the file's own clock, for what is kept for a while

	wall   func() time.Time // of a read
	hooks  Hooks
	locals map[any]any
	saves  []func() error
}

// Bound is how many rows the transaction may deal with, usually so many.
func (tx *Tx) Bound(usual int) int { return tx.hooks.bound(usual) }

// Local is what a package keeps in memory for one transaction of the writer, such as
// rows that many changes of the group touch: Begin makes it when it is first asked for,
// and Save writes it when the group ends.
type Local[T any] struct {
	Begin func(*Tx) (*T, error)
	Save  func(*T) error
}

// In is the local value of a transaction.
func (l *Local[T]) In(tx *Tx) (*T, error) {
	if v, ok := tx.locals[l].(*T); ok {
		return v, nil
	}
	v, err := l.Begin(tx)
	if err != nil {
		return nil, err
	}
	if tx.locals == nil {
		tx.locals = map[any]any{}
	}
	tx.locals[l] = v
	tx.saves = append(tx.saves, func() error { return l.Save(v) })
	return v, nil
}

// save writes what packages have kept in memory. To write may begin another.
func (tx *Tx) save() error {
	for len(tx.saves) > 0 {
		next := tx.saves[0]
		tx.saves = tx.saves[1:]
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

// View runs f in a read transaction. A row that cannot be decoded, or a page that
// leads astray, is our own damage: it stops the writer, and nothing is answered from
// the file any more.
func (db *DB) View(ctx context.Context, f func(*Tx) error) error {
	if err := errors.Join(ctx.Err(), db.damaged()); err != nil {
		return err
	}
	err := guard(func() error { return db.view(f) })
	if errors.Is(err, ErrDamaged) {
		db.fail(err)
	}
	return err
}

// view runs f in a read transaction, whatever comes of it.
func (db *DB) view(f func(*Tx) error) error {
	return db.bolt.View(func(tx *bbolt.Tx) error { return f(&Tx{Tx: tx, wall: db.cfg.Now, hooks: db.cfg.Hooks}) })
}

// Read is View with a result.
func Read[T any](ctx context.Context, db *DB, f func(*Tx) (T, error)) (result T, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		result, err = f(tx)
		return err
	})
	return result, err
}

// metaBucket holds numbers by name: the version of the schema, the clock, and what the
// packages above count.
const metaBucket = "meta"

// Meta is a number of the bucket meta.
func (tx *Tx) Meta(name string) (uint64, error) {
	row := tx.Bucket([]byte(metaBucket)).Get([]byte(name))
	n, ok := NumberOf([]byte(name), row)
	if !ok {
		return 0, fmt.Errorf("%w: meta %s is no number: %x", ErrRow, name, row[:min(len(row), 16)])
	}
	return n, nil
}

// PutMeta writes a number of the bucket meta.
func (tx *Tx) PutMeta(name string, n uint64) error {
	row := SealedNumber([]byte(name), n)
	if name == metaSchema { // every version reads it, also one that knows no checksums
		row = NumberKey(n)
	}
	if err := tx.Bucket([]byte(metaBucket)).Put([]byte(name), row); err != nil {
		return fmt.Errorf("put meta %s: %w", name, err)
	}
	return nil
}

// SeekBefore puts the cursor on the last key below end.
func SeekBefore(c *Cursor, end []byte) (k, v []byte) {
	if k, _ := c.Seek(end); k == nil {
		return c.Last()
	}
	return c.Prev()
}

// DeleteFirst deletes the first rows of a bucket for which old is true, no more than
// left, and stops at the first for which it is not.
func DeleteFirst(b *Bucket, left *int, old func(k, row []byte) bool) error {
	var keys [][]byte
	c := b.Cursor()
	for k, row := c.First(); k != nil && len(keys) < *left && old(k, row); k, row = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	*left -= len(keys)
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
