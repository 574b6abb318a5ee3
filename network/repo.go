package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/record"
)

const (
	methodGetRepo = "com.atproto.sync.getRepo"

	// maxCommit is far more than any commit takes.
	maxCommit = 16 << 10
)

// Repo is a whole repo as its host sent it, with everything verified: the DID,
// the signature, the revision, the order, shape and completeness of the tree, and
// the hash of every block. It holds memory of the shared budget until Close.
type Repo struct {
	Rev syntax.TID

	paths repoPaths
	tree  []byte // CID of its root
	car   *car
	grant grant
}

// Block is one record of a Repo.
type Block struct {
	CID cid.Cid
	// Data is DAG-CBOR whose hash is CID's: the repo's own memory, to be left as it
	// is and not to be used after Close. It is nil for a record that is there but
	// that no reader takes: one of more than 1 MiB, or one whose CID is not that of
	// DAG-CBOR under SHA-256.
	Data []byte
}

// Repo fetches a whole repo and verifies it. Besides the reasons of every
// request it fails with ReasonBadSignature (another key signed it, or ident has
// none: worth a fresh look-up of the DID), ReasonBadRev, ReasonIncomplete
// (blocks are missing, as when the repo changes while it is sent),
// ReasonTooLarge (past maxCAR, and then listRecords may do) and ReasonBadAnswer
// (it is no repo, or another one's).
//
// While the memory of all repos and bodies is taken, the call waits. So whoever
// holds a Repo must not wait for another answer before it is closed.
func (c *Client) Repo(ctx context.Context, host Host, ident Identity) (*Repo, error) {
	key, err := ident.Key()
	if err != nil {
		return nil, &Error{Op: methodGetRepo, Host: host, Reason: ReasonBadSignature, Err: fmt.Errorf("the did document has no key to check it with: %w", err)}
	}
	q := call{
		op: methodGetRepo, host: host, limit: maxCAR, subject: ident.DID.String(), lane: laneRepo,
		target: xrpc(methodGetRepo, url.Values{"did": {ident.DID.String()}}), car: new(car),
	}
	a, err := c.fetch(ctx, q)
	if refused, ok := errors.AsType[*Error](err); ok {
		if inferred := c.inferNotFound(ctx, host, ident.DID, refused); inferred != nil {
			err = inferred
		}
	}
	if err != nil {
		return nil, err
	}
	r := &Repo{car: q.car, grant: a.grant}
	if err := c.verify(ctx, r, a.host, ident.DID, key); err != nil {
		r.Close()
		return nil, err
	}
	c.rememberAnswer(host, questionRepo, ident.DID)
	return r, nil
}

// verify checks commit and tree. The hashes of the blocks were checked as they came.
func (c *Client) verify(ctx context.Context, r *Repo, host Host, did syntax.DID, key atcrypto.PublicKey) error {
	fail := func(err error) error {
		if bad, ok := errors.AsType[*badCAR](err); ok {
			return &Error{Op: methodGetRepo, Host: host, Reason: bad.reason, Err: bad.err}
		}
		return fmt.Errorf("%s at %s: %w", methodGetRepo, host, err)
	}
	commit, err := r.car.commit(did, key)
	if err != nil {
		return fail(err)
	}
	if r.Rev, err = c.rev(methodGetRepo, host, commit.Rev); err != nil {
		return err
	}
	r.tree = commit.Data.Bytes()
	v := verifier{car: r.car}
	if _, err := v.node(ctx, r.tree, 0); err != nil {
		return fail(err)
	}
	r.paths = v.paths
	return nil
}

// commit reads the commit and checks whose it is.
func (c *car) commit(did syntax.DID, key atcrypto.PublicKey) (*repo.Commit, error) {
	data, kept, there := c.find(c.root)
	switch {
	case !there:
		return nil, spoiled(ReasonIncomplete, "the commit is missing")
	case !kept || len(data) > maxCommit:
		return nil, spoiled(ReasonBadAnswer, "a commit of more than %d bytes", maxCommit)
	}
	commit, err := readCommit(data)
	if err == nil {
		err = saysOneThing(c.root, data)
	}
	if err != nil {
		return nil, spoiled(ReasonBadAnswer, "commit: %w", err)
	}
	switch {
	case commit.DID != did.String():
		return nil, spoiled(ReasonBadAnswer, "the repo is that of %.100q", commit.DID)
	case commit.Version != repo.ATPROTO_REPO_VERSION:
		return nil, spoiled(ReasonBadAnswer, "repo of version %d", commit.Version)
	}
	if err := signed(commit, key); err != nil {
		return nil, spoiled(ReasonBadSignature, "commit %s: %w", cut(commit.Rev), err)
	}
	return commit, nil
}

// readCommit decodes with a library, and lets no panic of it out: what it is
// given comes from a host.
func readCommit(data []byte) (commit *repo.Commit, err error) {
	defer recovered(&err)
	in := bytes.NewReader(data)
	commit = new(repo.Commit)
	if err := commit.UnmarshalCBOR(in); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, errors.New("something after the end")
	}
	return commit, nil
}

// saysOneThing refuses a block with a key twice in a map, of which readers take the one
// or the other.
func saysOneThing(name digest, block []byte) error {
	id, err := cid.Cast(append([]byte(linkPrefix), name[:]...))
	if err == nil {
		_, err = record.FromCBOR(block, id)
	}
	return err
}

func signed(commit *repo.Commit, key atcrypto.PublicKey) (err error) {
	defer recovered(&err)
	return commit.VerifySignature(key)
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("reading it panicked: %v", p)
	}
}

// Collections are the collections that have records, in the order of their keys
// in the tree.
func (r *Repo) Collections() []syntax.NSID { return slices.Clone(r.paths.collections) }

// Rejected are the keys of the tree that no record can be addressed by, since they are
// not a collection and a record key: those under some collections, or all. They are
// neither in Collections nor in Records.
func (r *Repo) Rejected(under ...syntax.NSID) Rejects { return r.paths.of(under) }

// Records walks the records of one collection, the highest record key first, as
// listings do. It holds no more of the tree than one node of each layer. After
// Close there are none.
func (r *Repo) Records(collection syntax.NSID) iter.Seq2[syntax.RecordKey, Block] {
	return func(yield func(syntax.RecordKey, Block) bool) {
		if r.car != nil && slices.Contains(r.paths.collections, collection) {
			r.walk(r.tree, collection.String()+"/", yield)
		}
	}
}

// walk visits the keys under a verified node that begin with prefix, the greatest
// first, and no node that can hold none. It tells whether lesser keys are still of
// interest.
func (r *Repo) walk(id []byte, prefix string, yield func(syntax.RecordKey, Block) bool) bool {
	name, _ := linked(id)
	data, _, _ := r.car.find(name)
	n, err := openNode(data)
	if err != nil {
		return false // not after verification
	}
	// A key is told by what it adds to the one before it, so they are read forwards.
	type keyed struct {
		key string
		entry
	}
	past := prefix + "\xff" // above every key of a collection
	entries := make([]keyed, 0, n.count)
	for e, ok := n.next(); ok; e, ok = n.next() {
		entries = append(entries, keyed{string(n.key), e})
	}
	for i, e := range slices.Backward(entries) {
		// The node behind a key holds what is between it and the next.
		behind := e.right != nil && e.key < past && (i+1 == len(entries) || entries[i+1].key > prefix)
		if behind && !r.walk(e.right, prefix, yield) {
			return false
		}
		rkey, ours := strings.CutPrefix(e.key, prefix)
		switch {
		case e.key < prefix:
			return false
		case !ours, !isRecordKey(rkey):
			continue // another collection's, or counted as rejected
		case !yield(syntax.RecordKey(rkey), r.block(e.value)):
			return false
		}
	}
	return n.left == nil || (len(entries) > 0 && entries[0].key <= prefix) || r.walk(n.left, prefix, yield)
}

// block is the record under a CID.
func (r *Repo) block(id []byte) Block {
	c, err := cid.Cast(id)
	if err != nil {
		return Block{} // not after verification
	}
	var data []byte
	if name, ok := linked(id); ok {
		data, _, _ = r.car.find(name)
	}
	return Block{CID: c, Data: data}
}

// Close gives the repo's memory back to the budget. It may be called twice.
func (r *Repo) Close() {
	r.car = nil
	r.grant.release()
}
