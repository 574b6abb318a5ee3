package kv

// AwaitsRoom reports whether a change waits for others to be committed, since they bring
// as much as may be queued.
func (db *DB) AwaitsRoom() bool {
	if !db.queuedBytes.TryAcquire(1) {
		return true
	}
	db.queuedBytes.Release(1)
	return false
}

// CheckDisk has the writer's view of the disk brought up to date.
func (db *DB) CheckDisk() { db.checkDisk() }

// Closed reports whether no more changes are taken.
func (db *DB) Closed() bool {
	db.closing.RLock()
	defer db.closing.RUnlock()
	return db.closed
}
