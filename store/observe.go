package store

import (
	"context"

	"go.etcd.io/bbolt"
)

// Load is what the store has before it.
type Load struct {
	Queued   int    // changes that wait for the writer
	IndexLag uint64 // changes that the key index of a collection is behind, at most
	FreeDisk uint64 // bytes on the disk that holds the file
	Reads    int    // transactions that are open, during which the file cannot reuse pages
}

// Load tells what the store has before it.
func (s *Store) Load(ctx context.Context) (Load, error) {
	free, err := s.db.FreeDisk()
	if err != nil {
		return Load{}, err
	}
	l := Load{Queued: s.db.Queued(), FreeDisk: free, Reads: s.db.OpenReads()}
	l.IndexLag, err = read(ctx, s, maxIndexLag)
	return l, err
}

// maxIndexLag is how many changes the key index of a collection is behind, at most.
func maxIndexLag(tx *bbolt.Tx) (most uint64, err error) {
	for _, name := range collectionNames(tx) {
		lag, err := indexLag(tx, []byte(name))
		if err != nil {
			return 0, err
		}
		most = max(most, lag)
	}
	return most, nil
}
