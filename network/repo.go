package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"time"

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
// the hash of every block. It holds memory of the shared budget, or a file, until Close.
type Repo struct {
	Rev syntax.TID

	paths  repoPaths
	walker walker
	buf    []byte // for the record that is looked at
	grant  grant
	fail   func(error) error // names what was asked, and whom
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
	if err != nil {
		q.car.close()
		return nil, c.notGiven(ctx, host, ident.DID, err)
	}
	r := &Repo{grant: a.grant, walker: walker{tree: tree{car: q.car}}}
	q.car.grow = func(n int64) error { return r.grant.grow(ctx, n) }
	r.fail = func(err error) error { return c.repoError(ctx, methodGetRepo, a.host, err) }
	if err := r.verify(ctx, ident.DID, key, func(rev string) (syntax.TID, error) { return c.rev(methodGetRepo, a.host, rev) }); err != nil {
		r.Close()
		return nil, r.fail(err)
	}
	c.rememberAnswer(host, questionRepo, ident.DID)
	return r, nil
}

// repoError is what a repo's error means to whoever asked for it, or for a part of it.
func (c *Client) repoError(ctx context.Context, op string, host Host, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if bad, ok := errors.AsType[*badCAR](err); ok {
		return &Error{Op: op, Host: host, Reason: bad.reason, Err: bad.err}
	}
	if errors.Is(err, errSpool) {
		return c.unspooled(ctx, host, err)
	}
	return fmt.Errorf("%s at %s: %w", op, host, err)
}

// notGiven says what it comes to that a repo is not given.
func (c *Client) notGiven(ctx context.Context, host Host, did syntax.DID, err error) error {
	refused, ok := errors.AsType[*Error](err)
	if ok {
		if inferred := c.inferNotFound(ctx, host, did, refused); inferred != nil {
			return inferred
		}
	}
	parked, down := errors.AsType[*Parked](err)
	if ok && refused.absent() && refused.Host == host || down && parked.Why == WhyDown && parked.Host == host {
		c.countRefused(host, did)
	}
	return err
}

// verify checks commit and tree. The hashes of the blocks were checked as they came.
func (r *Repo) verify(ctx context.Context, did syntax.DID, key atcrypto.PublicKey, readRev func(string) (syntax.TID, error)) error {
	commit, err := r.walker.car.commit(did, key)
	if err != nil {
		return err
	}
	if r.Rev, err = readRev(commit.Rev); err != nil {
		return err
	}
	v := verifier{tree: r.walker.tree}
	if err := v.root(ctx, commit.Data.Bytes()); err != nil {
		return err
	}
	r.walker = walker{tree: v.tree, root: commit.Data.Bytes()}
	r.paths = v.paths
	return nil
}

// spoolPause is how long a repo waits for which there was no room on the disk.
const spoolPause = 30 * time.Second

// unspooled is the error of a call that could not keep a large repo in a file: nobody's
// failed attempt.
func (c *Client) unspooled(ctx context.Context, host Host, err error) error {
	c.cfg.Log.WarnContext(ctx, "a large repo cannot be read", "host", host, "err", err)
	return &Parked{Host: host, Until: c.cfg.Now().Add(spoolPause), Why: WhyDisk}
}

// commit reads the commit and checks whose it is.
func (c *car) commit(did syntax.DID, key atcrypto.PublicKey) (*repo.Commit, error) {
	f, there, err := c.find(c.root)
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, spoiled(ReasonIncomplete, "the commit is missing")
	case f.size > maxCommit:
		return nil, spoiled(ReasonBadAnswer, "a commit of more than %d bytes", maxCommit)
	}
	data, err := c.read(f, make([]byte, c.roomFor(f)))
	if err != nil {
		return nil, err
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
// listings do. It holds no more of the tree than one node of each layer. Whoever wants
// several collections asks for the last one first: then no node is read twice. When a
// walk has ended, Err says whether it came to its end. After Close there are none.
func (r *Repo) Records(ctx context.Context, collection syntax.NSID) iter.Seq2[syntax.RecordKey, Block] {
	return func(yield func(syntax.RecordKey, Block) bool) {
		if r.err == nil && slices.Contains(r.paths.collections, collection) {
			if err := r.walk(ctx, collection.String()+"/", yield); err != nil {
				r.err = r.fail(err)
			}
		}
	}
}

// Err is why a walk has ended early: a *Parked or the context's error.
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
		if rkey := w.key[len(prefix):]; r.paths.sound() || record.ValidRecordKey(rkey) {
			b, err := r.block(w.current.value)
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

// block is the record under a CID.
func (r *Repo) block(id []byte) (Block, error) {
	c, err := cid.Cast(id)
	if err != nil {
		return Block{}, err // not after verification
	}
	name, ok := linked(id)
	if !ok {
		return Block{CID: c}, nil
	}
	t := &r.walker.tree
	f, there, err := t.car.find(name)
	if err != nil || !there || f.size == unkept {
		return Block{CID: c}, err
	}
	if r.buf, err = enlarge(t, r.buf, t.car.roomFor(f), 1); err != nil {
		return Block{}, err
	}
	data, err := t.car.read(f, r.buf)
	return Block{CID: c, Data: data}, err
}

// Close gives the repo's memory and its file back. It may be called twice.
func (r *Repo) Close() {
	if r.walker.car != nil {
		r.walker.car.close()
	}
	r.walker, r.paths, r.buf = walker{}, repoPaths{}, nil
	r.grant.release()
}
