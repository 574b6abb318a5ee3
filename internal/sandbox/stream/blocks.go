package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

// commitBlocks are the blocks that a commit is announced with: the commit, the records
// that it wrote, and the nodes of the new tree that lead to each key that it touched and
// to the keys beside it. By these the operations can be undone on the tree.
func commitBlocks(e sandbox.Event) ([]encode.Block, error) {
	blocks := []encode.Block{{CID: e.Head.CID, Data: e.Head.Commit()}}
	t := treeOf(e.Head)
	keys, err := t.keys(nil, e.Head.Root(), nil)
	if err != nil {
		return nil, err
	}
	lead := func(key string) (err error) {
		blocks, err = e.Head.Lead(blocks, []byte(key))
		return err
	}
	for _, o := range e.Ops {
		if o.Entry.CID.Defined() {
			blocks = append(blocks, encode.Block{CID: o.Entry.CID, Data: o.Entry.Block})
		}
		path := pathOf(o)
		if err := lead(path); err != nil {
			return nil, err
		}
		i, found := slices.BinarySearch(keys, path)
		if i > 0 {
			err = lead(keys[i-1])
		}
		if found {
			i++
		}
		if err == nil && i < len(keys) {
			err = lead(keys[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if len(e.Ops) == 0 {
		err = lead("")
	}
	return blocks, err
}

// nodes are the nodes of a tree by their CID.
type nodes map[cid.Cid][]byte

func treeOf(h *sandbox.Head) nodes {
	t := make(nodes, len(h.Blocks))
	for _, b := range h.Blocks {
		t[b.CID] = b.Data
	}
	return t
}

// keys are all keys under a node, sorted.
func (t nodes) keys(into []string, id cid.Cid, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	n, err := mst.NodeDataFromCBOR(bytes.NewReader(t[id]))
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", id, err)
	}
	if n.Left != nil {
		into, err = t.keys(into, *n.Left, err)
	}
	var key []byte
	for _, entry := range n.Entries {
		key = append(key[:entry.PrefixLen], entry.KeySuffix...)
		into = append(into, string(key))
		if entry.Right != nil {
			into, err = t.keys(into, *entry.Right, err)
		}
	}
	return into, err
}

// rootedCAR is a CAR whose first block is the root.
func rootedCAR(root cid.Cid, blocks []encode.Block) []byte {
	seen := make(map[cid.Cid]bool, len(blocks))
	b := encode.CARHeader(nil, root)
	for _, block := range blocks {
		if seen[block.CID] {
			continue
		}
		seen[block.CID] = true
		id := block.CID.Bytes()
		b = binary.AppendUvarint(b, uint64(len(id)+len(block.Data)))
		b = append(append(b, id...), block.Data...)
	}
	return b
}
