package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// block is one entry of a CAR.
type block struct {
	cid  cid.Cid
	data []byte
}

// head is the signed commit of a rev with the tree under it.
type head struct {
	rev    syntax.TID
	cid    cid.Cid
	blocks []block // the commit and the tree's nodes
}

// currentHead is the commit of the repo's current rev, signed when it is first
// asked for and kept until the repo changes: a rev has one commit.
func (a *account) currentHead() (*head, error) {
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
func (a *account) headAt(h *host) (*head, error) {
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
func (a *account) makeHead() (*head, error) {
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
func (a *account) headOver(tree mst.Tree) (*head, error) {
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
	if err := commit.Sign(key); err != nil {
		return nil, fmt.Errorf("sign commit %s of %s: %w", a.rev, a.did, err)
	}
	var buf bytes.Buffer
	if err := commit.MarshalCBOR(&buf); err != nil {
		return nil, fmt.Errorf("encode commit %s of %s: %w", a.rev, a.did, err)
	}
	c, err := cidOf(buf.Bytes())
	if err != nil {
		return nil, fmt.Errorf("hash commit %s of %s: %w", a.rev, a.did, err)
	}
	return &head{rev: a.rev, cid: c, blocks: append(blocks, block{c, buf.Bytes()})}, nil
}

// nodes collects the blocks of a tree whose CIDs have been computed.
func nodes(into []block, n *mst.Node) ([]block, error) {
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
	return append(into, block{*c, b}), nil
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
	var blocks []block
	if since != h.rev.String() {
		blocks = slices.Clone(h.blocks)
		for _, s := range a.shelves {
			for _, r := range s.records {
				blocks = append(blocks, block{r.cid, r.block})
			}
		}
	}
	a.mu.Unlock()

	return appendCAR(into, h.cid, blocks), nil
}

// appendCAR writes blocks in no helpful order, and the commit not first, as real hosts
// do: a reader must not count on either.
func appendCAR(into []byte, root cid.Cid, blocks []block) []byte {
	slices.SortFunc(blocks, func(x, y block) int { return bytes.Compare(x.cid.Bytes(), y.cid.Bytes()) })
	blocks = slices.CompactFunc(blocks, func(x, y block) bool { return x.cid == y.cid })
	if len(blocks) > 1 && blocks[0].cid == root {
		blocks[0], blocks[1] = blocks[1], blocks[0]
	}
	into = appendCARHeader(into, root)
	for _, b := range blocks {
		id := b.cid.Bytes()
		into = binary.AppendUvarint(into, uint64(len(id)+len(b.data)))
		into = append(append(into, id...), b.data...)
	}
	return into
}

// appendCARHeader writes {"roots":[root],"version":1} in DAG-CBOR behind its
// length: the only shape that a repo's CAR has.
func appendCARHeader(into []byte, root cid.Cid) []byte {
	id := root.Bytes()
	header := append([]byte{0xa2, 0x65}, "roots"...)
	header = append(header, 0x81, 0xd8, 0x2a, 0x58, byte(len(id)+1), 0x00)
	header = append(header, id...)
	header = append(append(header, 0x67), "version"...)
	header = append(header, 0x01)
	into = binary.AppendUvarint(into, uint64(len(header)))
	return append(into, header...)
}
