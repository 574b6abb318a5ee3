package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Backup writes a copy of the file as it is at one moment. begin is called once,
// before the first byte, with the length of the copy. It holds one read transaction
// open until it returns: the file cannot reuse pages meanwhile, so that neither may
// take long.
func (db *DB) Backup(ctx context.Context, begin func(size int64) error, w io.Writer) error {
	return db.View(ctx, func(tx *Tx) error {
		if err := func() error { defer Rethrow(); return begin(tx.Size()) }(); err != nil {
			return err
		}
		bound := &boundWriter{done: ctx.Err, w: w}
		if _, err := tx.WriteTo(bound); err != nil {
			return errors.Join(bound.err, err) // bbolt does not always keep what it was
		}
		return nil
	})
}

// boundWriter writes until it is done.
type boundWriter struct {
	done func() error
	w    io.Writer
	err  error
}

func (b *boundWriter) Write(p []byte) (n int, err error) {
	defer Rethrow()
	if b.err = b.done(); b.err == nil {
		n, b.err = b.w.Write(p)
	}
	return n, b.err
}

// backUp copies a file of an older format to a place beside it, for whoever has to
// go back to the program that wrote it. What a crash leaves of a copy is removed with the
// next: nobody else has the database.
func (db *DB) backUp(format uint64) error {
	to := fmt.Sprintf("%s.format%d.backup", db.name(), format)
	if err := db.dir.RemoveParts(to); err != nil {
		return err
	}
	return db.dir.Replace(to, func(f *os.File) error {
		return db.view(func(tx *Tx) error {
			need := uint64(tx.Size()) + db.cfg.Reserve
			if free, err := db.cfg.FreeSpace(db.dir.Path()); err == nil && free < need {
				return fmt.Errorf("%w: %d MiB are needed, %d MiB are free: nothing was changed", ErrDiskFull, need>>20+1, free>>20)
			}
			db.cfg.Log.Info("database is of an older format: a copy of it is kept",
				"file", filepath.Join(db.dir.Path(), to), "format", format, "bytes", tx.Size())
			_, err := tx.WriteTo(f)
			return err
		})
	})
}
