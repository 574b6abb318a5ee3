package network

import (
	"bytes"
	"context"
	"fmt"
	"net/url"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

const (
	methodRecordProof = "com.atproto.sync.getRecord"

	// maxProof is the largest proof that is read, in bytes after decompression: a record
	// of the largest kind, and far more nodes than lead to one.
	maxProof = 4 << 20
)

// Proof is what a repo holds under one path, as its host proves it: by a signed commit,
// the nodes of the tree that lead there, and the record.
type Proof struct {
	Rev   syntax.TID // of the commit
	Block Block      // in memory of its own; the CID is undefined if there is no such record
}

// RecordProof asks for one record with its proof. It fails as Repo does.
func (c *Client) RecordProof(ctx context.Context, host Host, ident Identity, collection syntax.NSID, rkey syntax.RecordKey) (Proof, error) {
	key, err := ident.Key()
	if err != nil {
		return Proof{}, &Error{Op: methodRecordProof, Host: host, Reason: ReasonBadSignature, Err: fmt.Errorf("the did document has no key to check it with: %w", err)}
	}
	query := url.Values{"did": {ident.DID.String()}, "collection": {collection.String()}, "rkey": {rkey.String()}}
	q := call{
		op: methodRecordProof, host: host, limit: maxProof, subject: ident.DID.String(),
		target: xrpc(methodRecordProof, query), car: new(car),
	}
	defer q.car.close()
	a, err := c.fetch(ctx, q)
	if err != nil {
		return Proof{}, err
	}
	defer a.release()
	q.car.grow = func(n int64) error { return a.grow(ctx, n) }
	fail := func(err error) (Proof, error) { return Proof{}, c.repoError(ctx, methodRecordProof, a.host, err) }
	commit, err := q.car.commit(ident.DID, key)
	if err != nil {
		return fail(err)
	}
	p := Proof{}
	if p.Rev, err = c.rev(methodRecordProof, a.host, commit.Rev); err != nil {
		return Proof{}, err
	}
	t := tree{car: q.car}
	id, err := t.lookup(ctx, commit.Data.Bytes(), []byte(collection.String()+"/"+rkey.String()))
	if err == nil && id != nil {
		p.Block, err = q.car.record(id)
	}
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// record is a copy of the record under a CID.
func (c *car) record(id []byte) (Block, error) {
	as, err := cid.Cast(id)
	if err != nil {
		return Block{}, spoiled(ReasonBadAnswer, "the record: %w", err)
	}
	name, ok := linked(id)
	if !ok {
		return Block{CID: as}, nil
	}
	f, there, err := c.find(name)
	switch {
	case err != nil:
		return Block{}, err
	case !there:
		return Block{}, spoiled(ReasonIncomplete, "the record is missing")
	case f.size == unkept:
		return Block{CID: as}, nil
	}
	if err := c.grow(int64(c.roomFor(f))); err != nil {
		return Block{}, err
	}
	data, err := c.read(f, make([]byte, c.roomFor(f)))
	return Block{CID: as, Data: bytes.Clone(data)}, err
}
