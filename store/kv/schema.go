package kv

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

var (
	// ErrNewer says that the file was written by a later version of the program.
	ErrNewer = errors.New("written by a newer version of appview")
	// ErrOlder says that the file must be opened for writing once, to be brought to
	// the current schema.
	ErrOlder = errors.New("written by an older version of appview: start appview serve once to bring it up to date")
)

// Schema is what the packages above bring to a file.
type Schema struct {
	// Migrations bring a file from version i to i+1. They run in order, each in a
	// transaction of its own together with the version it reaches. One that returns
	// ErrAgain has done a part: that is committed, and it is called again. Where the process
	// ends in between, the next one begins it anew.
	Migrations []func(*Tx) error
	// Buckets are those that a file of the last version has at its top, beside meta.
	Buckets []string
	// Checks prove what is in the rows, one after the other.
	Checks []func(context.Context, *Checker) error
	// Load, if not nil, reads what is kept in memory, before anything is written. It is
	// not called for a file that is opened for reading only.
	Load func(*Tx) error
	// Prunes delete what is kept no longer.
	Prunes []Pruner
}

// metaSchema is the name of the version in the bucket meta.
const metaSchema = "schema"

// newest is the version that this program writes.
func (s Schema) newest() uint64 { return uint64(len(s.Migrations)) }

// version is the schema version of the file, 0 if it is empty.
func (s Schema) version(tx *bbolt.Tx) (uint64, error) {
	if tx.Bucket([]byte(metaBucket)) != nil {
		v, err := (&Tx{Tx: tx}).Meta(metaSchema)
		if err == nil && v > s.newest() {
			err = fmt.Errorf("schema version %d, this program knows %d: %w", v, s.newest(), ErrNewer)
		}
		return v, err
	}
	if k, _ := tx.Cursor().First(); k != nil {
		return 0, fmt.Errorf("%w: it holds %q, which appview does not write", ErrDamaged, k)
	}
	return 0, nil
}

// current refuses a file that is not of the version that this program writes, or
// lacks what such a file has.
func (s Schema) current(tx *bbolt.Tx) error {
	v, err := s.version(tx)
	if err == nil && v < s.newest() {
		err = fmt.Errorf("schema version %d, this program reads %d: %w", v, s.newest(), ErrOlder)
	}
	if err != nil {
		return err
	}
	for _, name := range append([]string{metaBucket}, s.Buckets...) {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: it has no %s: restore a backup", ErrDamaged, name)
		}
	}
	return nil
}

// migrate brings the file to the version that this program writes, or refuses. A
// copy of an older one is kept first.
func (db *DB) migrate() error {
	var from uint64
	to := db.schema.newest()
	err := db.bolt.View(func(tx *bbolt.Tx) (err error) {
		from, err = db.schema.version(tx)
		return err
	})
	if err != nil {
		return err
	}
	if from > 0 && from < to {
		if err := db.backUp(from); err != nil {
			return fmt.Errorf("keep a copy of the database before it is brought from format %d to %d: %w", from, to, err)
		}
	}
	for v := from; v < to; v++ {
		if err := db.migrateFrom(v); err != nil {
			return err
		}
	}
	if from > 0 && from < to {
		db.cfg.Log.Info("database brought to the current format", "from", from, "to", to)
	}
	return nil
}

// migrateFrom brings the file from a version to the next one.
func (db *DB) migrateFrom(v uint64) (err error) {
	for again := true; again && err == nil; {
		err = db.bolt.Update(func(in *bbolt.Tx) error {
			err := db.migrateIn(in, v)
			if again = errors.Is(err, ErrAgain); again {
				err = nil
			}
			return err
		})
	}
	return err
}

// migrateIn does in a transaction what is to be done to bring the file from a version to
// the next one, or a part of it.
func (db *DB) migrateIn(in *bbolt.Tx, v uint64) error {
	tx := &Tx{Tx: in, hooks: db.cfg.Hooks}
	if _, err := tx.CreateBucketIfNotExists([]byte(metaBucket)); err != nil {
		return fmt.Errorf("create bucket %s: %w", metaBucket, err)
	}
	if err := db.schema.Migrations[v](tx); err != nil {
		return fmt.Errorf("migrate to schema %d: %w", v+1, err)
	}
	return tx.PutMeta(metaSchema, v+1)
}
