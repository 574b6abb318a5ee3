package kv

import (
	"errors"
	"fmt"
)

// ErrDiskFull says that less than the reserve of free disk is left.
var ErrDiskFull = errors.New("disk is full")

// DiskFull looks at the disk, and reports whether writes wait, or would, because less than
// the reserve is free. What the last write has seen is not enough: who is told to send
// nothing while the disk is full would never learn that it has room again.
func (db *DB) DiskFull() bool {
	db.checkDisk()
	return db.full.Load()
}

// FreeDisk is how many bytes are free on the disk that holds the file.
func (db *DB) FreeDisk() (uint64, error) {
	free, err := db.cfg.FreeSpace(db.dir.Path())
	if err != nil {
		return 0, fmt.Errorf("free space of the disk: %w", err)
	}
	return free, nil
}

// checkDisk looks at the disk, and reports whether less than the reserve is free. Where
// the system cannot tell, it is not. The disk counts as full, too, while changes are held
// because a commit has found no room, whatever the system says: a quota may be used up.
func (db *DB) checkDisk() (low bool) {
	free, err := db.cfg.FreeSpace(db.dir.Path())
	low = err == nil && free < db.cfg.Reserve
	full := low || db.noSpace.Load()
	if db.full.Swap(full) != full {
		if full {
			db.cfg.Log.Warn("disk is full: writes wait until there is room", "free_bytes", free, "reserve_bytes", db.cfg.Reserve)
		} else {
			db.cfg.Log.Info("disk has room again", "free_bytes", free)
		}
	}
	return low
}

// setNoSpace notes whether changes are held because a commit has found no room.
func (db *DB) setNoSpace(is bool) {
	if db.noSpace.Swap(is) != is {
		db.checkDisk()
	}
}

// errFull is ErrDiskFull for a change that does op.
func (db *DB) errFull(op string) error {
	return fmt.Errorf("%s: %w: less than %d MiB is free at %s", op, ErrDiskFull, db.cfg.Reserve>>20, db.cfg.Path)
}
