package kv

import (
	"context"
	"errors"
	"fmt"
)

// maxFindings bounds what a check reports: past that a file is damaged enough.
const maxFindings = 100

// Checker gathers what is wrong with a file.
type Checker struct {
	Tx       *Tx
	findings []error
}

// Found notes something that is wrong.
func (c *Checker) Found(format string, args ...any) {
	if len(c.findings) < maxFindings {
		c.findings = append(c.findings, fmt.Errorf(format, args...))
	}
}

// Check proves that the file is in order: every page, and by the checks of the schema
// every row. It joins all findings into one error, which is ErrDamaged.
func (db *DB) Check(ctx context.Context) error {
	return db.View(ctx, func(tx *Tx) error {
		c := &Checker{Tx: tx}
		err := db.pagesOf(tx.Tx).walk(ctx, c.Found)
		if err == nil && len(c.findings) == 0 { // bbolt may follow what it reads
			for err := range tx.Check() {
				c.Found("%w", err)
			}
		}
		if err == nil && len(c.findings) == 0 {
			err = db.checkRows(ctx, c)
		}
		if len(c.findings) > 0 {
			return c.damage(err)
		}
		return err
	})
}

// damage joins what was found, and what has ended the search, into one error.
func (c *Checker) damage(err error) error {
	return fmt.Errorf("%w: %w", ErrDamaged, errors.Join(append(c.findings, err)...))
}

// checkRows checks what is in the pages.
func (db *DB) checkRows(ctx context.Context, c *Checker) error {
	version, err := c.Tx.Meta(metaSchema)
	if err != nil {
		return err
	}
	if version != db.schema.newest() {
		c.Found("schema version is %d, not %d", version, db.schema.newest())
	}
	for _, check := range db.schema.Checks {
		if err := check(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// CheckTable checks that every row of a table can be read.
func CheckTable[V any](c *Checker, t Table[V]) { CheckBucket(c, t, t.Bucket(c.Tx)) }

// CheckBucket checks that every row of a bucket can be read as one of a table.
func CheckBucket[V any](c *Checker, t Table[V], b *Bucket) {
	_ = b.ForEach(func(k, row []byte) error { // which returns what is returned to it
		if _, err := t.Decode(k, row); err != nil {
			c.Found("%s %x: %w", t.Name, k, err)
		}
		return nil
	})
}
