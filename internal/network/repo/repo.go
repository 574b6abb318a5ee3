// Package repo reads signed repos: the blocks of a CAR, the commit, and the Merkle search
// tree of the records. Nothing of a repo is returned before all of it was verified: the DID,
// the signature, the revision, the order, shape and completeness of the tree, and the hash of
// every block. It needs no network; whoever reads bounds the memory (Memory).
package repo

import (
	"bytes"
	"context"
	"iter"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/record"
)

// Repo is a whole repo that was verified. It takes the memory of its CAR until Close.
type Repo struct {
	Rev syntax.TID

	paths  paths
	walker walker
	buf    []byte // for the current record
	err    error
}

// Block is one record of a Repo.
type Block struct {
	CID cid.Cid
	// Data is DAG-CBOR whose hash is CID's: the repo's own memory, to be left as it
	// is and good until the next record. It is nil for a record that is there but
	// that no reader takes: one of more than 1 MiB, or one whose CID is not that of
	// DAG-CBOR under SHA-256.
	Data []byte
}

// Open verifies the repo of an account in a CAR. grow is asked before more memory is taken,
// also by walks. It fails with an *outcome.BadContent, ErrSpool, or the error of grow or ctx.
func (c *CAR) Open(ctx context.Context, a Account, grow func(n int64) error) (*Repo, error) {
	c.grow = grow
	root, rev, err := c.commit(a)
	if err != nil {
		return nil, err
	}
	v := verifier{tree: tree{car: c}}
	if err := v.verifyTree(ctx, root); err != nil {
		return nil, err
	}
	return &Repo{Rev: rev, paths: v.paths, walker: walker{tree: v.tree, root: root}}, nil
}

// Collections are the collections that have records, in the order of their keys
// in the tree.
func (r *Repo) Collections() []syntax.NSID { return slices.Clone(r.paths.collections) }

// Rejected are the keys of the tree that no record can be addressed by, since they are
// not a collection and a record key: those under some collections, or all. They are
// neither in Collections nor in Records.
func (r *Repo) Rejected(under ...syntax.NSID) Rejects { return r.paths.rejectedUnder(under) }

// Records walks the records of one collection, the highest record key first, as
// listings do. It holds no more of the tree than one node of each layer. Whoever wants
// several collections asks for the last one first: then no node is read twice. When a
// walk has ended, Err says whether it came to its end. After Close there are none.
func (r *Repo) Records(ctx context.Context, collection syntax.NSID) iter.Seq2[syntax.RecordKey, Block] {
	return func(yield func(syntax.RecordKey, Block) bool) {
		if r.err == nil && slices.Contains(r.paths.collections, collection) {
			r.err = r.walk(ctx, collection.String()+"/", yield)
		}
	}
}

// Err is why a walk has ended early: ErrSpool, or the error of memory or the context.
func (r *Repo) Err() error { return r.err }

// walk visits the records whose keys begin with prefix, the greatest first.
func (r *Repo) walk(ctx context.Context, prefix string, yield func(syntax.RecordKey, Block) bool) error {
	w := &r.walker
	below := []byte(prefix)
	below[len(below)-1]++ // above every key of the collection
	for {
		ok, err := w.seek(ctx, below)
		if err != nil || !ok || !bytes.HasPrefix(w.key, []byte(prefix)) {
			return err
		}
		if rkey := w.key[len(prefix):]; r.paths.allValid() || record.ValidRecordKey(rkey) {
			b, err := r.readBlock(w.current.value)
			if err != nil {
				return err
			}
			if !yield(syntax.RecordKey(rkey), b) {
				return nil
			}
		}
		below = append(below[:0], w.key...)
	}
}

// readBlock is the record under a CID.
func (r *Repo) readBlock(id []byte) (Block, error) {
	c, err := cid.Cast(id)
	if err != nil {
		return Block{}, err // not after verification
	}
	name, ok := digestOf(id)
	if !ok {
		return Block{CID: c}, nil
	}
	t := &r.walker.tree
	f, found, err := t.car.find(name)
	if err != nil || !found || f.size == notStored {
		return Block{CID: c}, err
	}
	if r.buf, err = ensureCapacity(t, r.buf, t.car.bufferSize(f), 1); err != nil {
		return Block{}, err
	}
	data, err := t.car.read(f, r.buf)
	return Block{CID: c, Data: data}, err
}

// Close closes the repo's CAR. It may be called twice.
func (r *Repo) Close() {
	if r.walker.car != nil {
		r.walker.car.Close()
	}
	r.walker, r.paths, r.buf = walker{}, paths{}, nil
}
