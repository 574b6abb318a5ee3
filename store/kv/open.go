package kv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked says that another process has the file open.
var ErrLocked = errors.New("another appview process has the database open")

const (
	// lockTimeout is how long Open waits for another process to let the file go.
	lockTimeout = 500 * time.Millisecond
	// pageSize is fixed when the file is made. Records of some hundred bytes pack
	// better into 8 KiB than into the system's 4.
	pageSize = 8 << 10
	// skimTime is how long Open may look at pages before it goes on without.
	skimTime = time.Second
	// manyFreePages is from where on bbolt's map of free pages beats its array.
	manyFreePages = 100_000
	// openTries bounds how often a file is opened that is replaced meanwhile.
	openTries = 3
)

func (db *DB) open() error {
	if err := db.openFile(); err != nil {
		return err
	}
	return guard(func() error {
		if err := db.bolt.View(db.skim); err != nil {
			return err
		}
		if !db.cfg.ReadOnly {
			if err := db.migrate(); err != nil {
				return err
			}
		}
		if err := db.bolt.View(db.schema.current); err != nil || db.cfg.ReadOnly || db.schema.Load == nil {
			return err
		}
		return db.view(db.schema.Load)
	})
}

// skim refuses a file in which bbolt would run in a circle. It gives up where that
// takes long, on a slow disk that has none of the file in memory yet: to be up again
// soon is worth more than to meet the worst of damage early.
func (db *DB) skim(tx *bbolt.Tx) error {
	ctx, cancel := context.WithTimeout(context.Background(), skimTime)
	defer cancel()
	c := &Checker{}
	err := db.pagesOf(tx).skim(ctx, c.Found)
	if len(c.findings) > 0 {
		return fmt.Errorf("%w: restore a backup", c.damage(nil))
	}
	if err != nil {
		db.cfg.Log.Warn("the pages of the database were not all looked at, which took too long: appview check does so", "took", skimTime)
	}
	return nil
}

func (db *DB) openFile() error {
	for try := 1; ; try++ {
		if err := db.inspect(); err != nil {
			return err
		}
		if err := db.openBolt(); err != nil {
			return err
		}
		// Compaction, or somebody who restores a backup, may have put another file
		// there before this one was locked.
		err := db.inPlace()
		if err == nil {
			return nil
		}
		if try == openTries {
			return err
		}
		if err := db.bolt.Close(); err != nil {
			return err
		}
	}
}

// openBolt opens the file and notes it.
func (db *DB) openBolt() error {
	opts := &bbolt.Options{
		Timeout: lockTimeout, PageSize: pageSize, InitialMmapSize: initialMmapSize,
		FreelistType: bbolt.FreelistArrayType, ReadOnly: db.cfg.ReadOnly, PreLoadFreelist: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = db.dir.OpenFile(filepath.Base(name), flag, mode)
			db.file = f
			return f, err
		},
	}
	err := guard(func() (err error) {
		if db.bolt, err = bbolt.Open(db.cfg.Path, 0o600, opts); err != nil || db.cfg.ReadOnly {
			return err
		}
		// bbolt counts its free pages when a write transaction ends.
		tx, err := db.bolt.Begin(true)
		if err == nil {
			err = tx.Rollback()
		}
		if err == nil && db.bolt.Stats().FreePageN > manyFreePages {
			opts.FreelistType = bbolt.FreelistMapType
			if err = db.bolt.Close(); err == nil {
				db.bolt, err = bbolt.Open(db.cfg.Path, 0o600, opts)
			}
		}
		return err
	})
	switch {
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("%w: restore a backup", err)
	case err != nil:
		db.file = nil // bbolt has closed it
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("%w: %w: restore a backup", ErrDamaged, err)
	case err != nil:
		return err
	}
	db.info, err = db.file.Stat()
	return err
}

// inPlace fails when the file is no longer where it was opened. What is written then
// is lost with the process.
func (db *DB) inPlace() error {
	there, err := os.Lstat(db.cfg.Path) // by its path: the directory may have been moved as well
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("the file was removed, or moved away, while it was open: put it back, or restore a backup, and start again")
	case err == nil && !os.SameFile(there, db.info):
		return errors.New("the file was replaced while it was open: start again, with the one that is to be used in its place")
	}
	return nil // or it cannot be told
}

// CheckPlace fails, and stops the writer, when the file is no longer where it was
// opened.
func (db *DB) CheckPlace() error {
	err := db.inPlace()
	if err != nil {
		db.fail(err)
	}
	return err
}
