package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Commit is a transaction of the writer, as it is measured.
type Commit struct {
	Changes int           // made in it
	Bytes   int           // of what they brought to be written
	Took    time.Duration // until it was safe on the disk
}

// observe tells of a commit, if anybody wants to know.
func (c Config) observe(pending []change, took time.Duration) {
	if c.Observe == nil {
		return
	}
	o := Commit{Changes: len(pending), Took: took}
	for _, p := range pending {
		o.Bytes += p.bytes
	}
	c.Observe(o)
}

// Statuses are all statuses that a job can have.
func Statuses() []Status { return slices.Sorted(maps.Keys(statusMoves)) }

// Load is what the store has before it.
type Load struct {
	Queued   int    // changes that wait for the writer
	IndexLag uint64 // changes that the key index of a collection is behind, at most
	FreeDisk uint64 // bytes on the disk that holds the file
	Reads    int    // transactions that are open, during which the file cannot reuse pages
}

// Load tells what the store has before it.
func (s *Store) Load(ctx context.Context) (l Load, err error) {
	l.Queued = len(s.queue) + len(s.ends)
	if l.FreeDisk, err = s.cfg.FreeSpace(s.dir.Path()); err != nil {
		return l, fmt.Errorf("free space of the disk: %w", err)
	}
	l.Reads = s.db.Stats().OpenTxN
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		for _, name := range collectionNames(tx) {
			lag, err := indexLag(tx, []byte(name))
			if err != nil {
				return err
			}
			l.IndexLag = max(l.IndexLag, lag)
		}
		return nil
	})
	return l, err
}
