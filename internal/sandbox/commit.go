package sandbox

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox/encode"
)

// Head is the signed commit of a rev with the tree under it. It is never changed.
type Head struct {
	Rev    syntax.TID
	CID    cid.Cid
	Blocks []encode.Block // the tree's nodes, its top last, and behind them the commit
}

// Commit is the commit's block.
func (h *Head) Commit() []byte { return h.Blocks[len(h.Blocks)-1].Data }

// Root names the top of the tree.
func (h *Head) Root() cid.Cid { return h.Blocks[len(h.Blocks)-2].CID }

// currentHead is the commit of the repo's current rev, signed when it is first
// asked for and kept until the repo changes: a rev has one commit.
func (a *account) currentHead() (*Head, error) {
	a.mu.RLock()
	h := a.head
	a.mu.RUnlock()
	if h != nil {
		return h, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.makeHead()
}

// headAt is the commit that a host knows, which for one that the account moved
// away from is the last one there.
func (a *account) headAt(h *host) (*Head, error) {
	a.mu.RLock()
	left := a.former[h]
	a.mu.RUnlock()
	if left != nil {
		return left, nil
	}
	return a.currentHead()
}

// makeHead builds the tree and signs the commit. The caller holds mu for
// writing, so that nobody else signs the same rev.
func (a *account) makeHead() (*Head, error) {
	if a.head != nil {
		return a.head, nil
	}
	tree, err := a.tree()
	if err != nil {
		return nil, err
	}
	a.head, err = a.headOver(tree)
	return a.head, err
}

// tree holds all records. The caller holds mu.
func (a *account) tree() (mst.Tree, error) {
	tree := mst.NewEmptyTree()
	for collection, s := range a.shelves {
		for _, r := range s.records {
			if _, err := tree.Insert([]byte(collection.String()+"/"+r.rkey.String()), r.cid); err != nil {
				return tree, fmt.Errorf("build tree of %s at %s/%s: %w", a.did, collection, r.rkey, err)
			}
		}
	}
	return tree, nil
}

// headOver signs a commit of the current rev over a tree. The caller holds mu for
// writing.
func (a *account) headOver(tree mst.Tree) (*Head, error) {
	root, err := tree.RootCID()
	if err != nil {
		return nil, fmt.Errorf("build tree of %s: %w", a.did, err)
	}
	blocks, err := nodes(nil, tree.Root)
	if err != nil {
		return nil, fmt.Errorf("encode tree of %s: %w", a.did, err)
	}
	key, err := a.signingKey()
	if err != nil {
		return nil, err
	}
	commit := repo.Commit{DID: a.did.String(), Version: repo.ATPROTO_REPO_VERSION, Data: *root, Rev: a.rev.String()}
	signed, err := SignCommit(commit, key)
	if err != nil {
		return nil, err
	}
	return &Head{Rev: a.rev, CID: signed.CID, Blocks: append(blocks, signed)}, nil
}

// SignCommit makes the block of a commit with a new signature.
func SignCommit(commit repo.Commit, key atcrypto.PrivateKey) (encode.Block, error) {
	commit.Sig = nil
	if err := commit.Sign(key); err != nil {
		return encode.Block{}, fmt.Errorf("sign commit %s of %s: %w", commit.Rev, commit.DID, err)
	}
	var buf bytes.Buffer
	if err := commit.MarshalCBOR(&buf); err != nil {
		return encode.Block{}, fmt.Errorf("encode commit %s of %s: %w", commit.Rev, commit.DID, err)
	}
	c, err := encode.CID(buf.Bytes())
	if err != nil {
		return encode.Block{}, fmt.Errorf("hash commit %s of %s: %w", commit.Rev, commit.DID, err)
	}
	return encode.Block{CID: c, Data: buf.Bytes()}, nil
}

// nodes collects the blocks of a tree whose CIDs have been computed.
func nodes(into []encode.Block, n *mst.Node) ([]encode.Block, error) {
	for _, e := range n.Entries {
		if e.Child == nil {
			continue
		}
		var err error
		if into, err = nodes(into, e.Child); err != nil {
			return nil, err
		}
	}
	data := n.NodeData()
	b, c, err := data.Bytes()
	if err != nil {
		return nil, err
	}
	return append(into, encode.Block{CID: *c, Data: b}), nil
}

// car appends the whole repo as a CAR. With since equal to the current rev it is
// a header only, as the reference PDS answers.
func (a *account) car(into []byte, since string) ([]byte, error) {
	a.mu.Lock()
	h, err := a.makeHead()
	if err != nil {
		a.mu.Unlock()
		return nil, err
	}
	var blocks []encode.Block
	if since != h.Rev.String() {
		blocks = slices.Clone(h.Blocks)
		for _, s := range a.shelves {
			for _, r := range s.records {
				blocks = append(blocks, encode.Block{CID: r.cid, Data: r.block})
			}
		}
	}
	a.mu.Unlock()

	return encode.CAR(into, h.CID, blocks), nil
}
