package index

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// Index is what a file holds of repos and their records.
type Index struct {
	db *kv.DB

	maxAccountBytes int64

	purges [][]byte // deletions that an earlier process has left

	tails tails

	denied  atomic.Pointer[denied]
	denying sync.Mutex // held while denied is changed
}

// New returns the index of a file that is not open yet. One account may take so many bytes
// of it, 0: DefaultMaxAccountBytes.
func New(maxAccountBytes int64) *Index {
	return &Index{maxAccountBytes: cmp.Or(maxAccountBytes, DefaultMaxAccountBytes)}
}

// Use gives the index its file, which was opened with its Part.
func (x *Index) Use(db *kv.DB) { x.db = db }

// load reads what is kept in memory.
func (x *Index) load(tx *kv.Tx) (err error) {
	if x.purges, err = openPurges(tx); err != nil {
		return err
	}
	return x.loadDenied(tx)
}

// Resume goes on with what an earlier process has left: it enforces the deny list and
// ends the deletions that were begun.
func (x *Index) Resume(ctx context.Context) error {
	// First of all: what is denied is served until it is hidden.
	if err := x.enforce(ctx); err != nil {
		return err
	}
	for _, id := range x.purges {
		if _, err := x.FinishDelete(ctx, id); err != nil {
			return fmt.Errorf("go on with deletions: %w", err)
		}
	}
	return nil
}

// Version names the state of the file. Any commit changes it: what was read
// between two calls that return the same is still so.
func (x *Index) Version(ctx context.Context) (uint64, error) {
	return kv.Read(ctx, x.db, func(tx *kv.Tx) (uint64, error) { return uint64(tx.ID()), nil })
}

// Stats is what the index holds.
type Stats struct {
	Collections map[syntax.NSID]Count // of served records
	Repos       int64                 // of which the index ever held a record
	Seq         uint64                // of the last change
	FileBytes   int64
	FreeBytes   int64 // of the file: was used, or is not yet
}

// Stats returns kept counts; it does not scan.
func (x *Index) Stats(tx *kv.Tx) (Stats, error) {
	st := Stats{Collections: map[syntax.NSID]Count{}}
	c := counts.Bucket(tx).Cursor()
	for k, row := c.First(); k != nil; k, row = c.Next() {
		n, err := counts.Decode(k, row)
		if err != nil {
			return st, fmt.Errorf("counts %s: %w", k, err)
		}
		if n.Records > 0 {
			st.Collections[syntax.NSID(k)] = n
		}
	}
	rids, err := tx.Meta(metaNextRID)
	if err != nil {
		return st, err
	}
	seqs, err := tx.Meta(metaNextSeq)
	if err != nil {
		return st, err
	}
	st.Repos, st.Seq = int64(rids)-1, seqs-1
	st.FileBytes, st.FreeBytes, err = x.db.Size(tx)
	return st, err
}
