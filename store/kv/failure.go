package kv

import (
	"errors"
	"fmt"
)

var (
	// ErrDamaged says that the file is not a whole appview database.
	ErrDamaged = errors.New("the database is damaged")
	// ErrClosed says that the file is closed.
	ErrClosed = errors.New("the store is closed")
)

// Failed is closed when a write has failed, or when the file has turned out to be
// damaged. Nothing is written from then on, and the process should end: what could
// not be written is not in the file, and nobody may take it to be.
func (db *DB) Failed() <-chan struct{} { return db.failed }

// Err is why the file is not written any more, or ErrClosed.
func (db *DB) Err() error {
	if err := db.failure.Load(); err != nil {
		return *err
	}
	return ErrClosed
}

// fail stops the writer for good.
func (db *DB) fail(err error) {
	db.failing.Do(func() {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %s", err, advice)
		}
		if p, ok := errors.AsType[*panicked](err); ok {
			db.cfg.Log.Debug("where damage was met", "err", err, "stack", string(p.stack))
		}
		db.failure.Store(&err)
		close(db.failed)
	})
}

// damaged is why nothing of the file is to be believed any more, nil if it is.
func (db *DB) damaged() error {
	if err := db.failure.Load(); err != nil && errors.Is(*err, ErrDamaged) {
		return *err
	}
	return nil
}
