package kv

import (
	"context"
	"fmt"
)

// Part is what one package above brings to a file.
type Part struct {
	// Buckets are those that the package has at the top of a file of the last version.
	Buckets []string
	// Migrations are what the package has to do, by the version that it leads to.
	Migrations map[int]func(*Tx) error
	Check      func(context.Context, *Checker) error
	// Load and Prune may be nil.
	Load  func(*Tx) error
	Prune Pruner
}

// Pruner deletes what a package keeps no longer, a bounded step at a time. What takes long
// to find out it looks up before it returns the step, which is made by the writer, and
// deletes no more rows than left.
type Pruner func(context.Context, *DB) (step func(tx *Tx, left *int) error, err error)

// pruneStep bounds the rows deleted in one transaction of Prune.
const pruneStep = 2_000

// Join makes the schema of a version of what packages bring, from below.
func Join(version int, parts ...Part) Schema {
	s := Schema{Migrations: make([]func(*Tx) error, version)}
	for i := range s.Migrations {
		s.Migrations[i] = func(tx *Tx) error { return migrateParts(tx, i+1, parts) }
	}
	for _, p := range parts {
		s.Buckets = append(s.Buckets, p.Buckets...)
		s.Checks = append(s.Checks, p.Check)
		if p.Prune != nil {
			s.Prunes = append(s.Prunes, p.Prune)
		}
	}
	s.Load = func(tx *Tx) error {
		for _, p := range parts {
			if p.Load == nil {
				continue
			}
			if err := p.Load(tx); err != nil {
				return err
			}
		}
		return nil
	}
	return s
}

// migrateParts brings what packages have to a version, from below. One that is done in part
// ends the transaction, and is the first to go on.
func migrateParts(tx *Tx, version int, parts []Part) error {
	for _, p := range parts {
		if migrate := p.Migrations[version]; migrate != nil {
			if err := migrate(tx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Prune deletes a bounded step of what is kept no longer. It returns true when nothing is
// left to delete.
func (db *DB) Prune(ctx context.Context) (bool, error) {
	steps := make([]func(*Tx, *int) error, 0, len(db.schema.Prunes))
	for _, prune := range db.schema.Prunes {
		step, err := prune(ctx, db)
		if err != nil {
			return false, fmt.Errorf("prune: %w", err)
		}
		steps = append(steps, step)
	}
	return Write(ctx, db, Change{Op: "prune", Urgent: true}, func(tx *Tx) (bool, error) {
		left := tx.Bound(pruneStep)
		for _, step := range steps {
			if err := step(tx, &left); err != nil {
				return false, err
			}
		}
		return left > 0, nil
	})
}

// MakeBuckets makes buckets at the top of a file that has none of them yet.
func MakeBuckets(tx *Tx, names ...string) error {
	for _, name := range names {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return nil
}
