package sandbox

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox/encode"
)

// getProof is com.atproto.sync.getRecord: one record with its proof, or the proof that
// there is none.
func (h *host) getProof(q query) answer {
	did, refusal := q.did()
	if refusal != nil {
		return *refusal
	}
	collection, refusal := q.collection()
	if refusal != nil {
		return *refusal
	}
	rkey, refusal := q.rkey()
	if refusal != nil {
		return *refusal
	}
	a, refusal := h.available(did.String())
	if refusal != nil {
		return *refusal
	}
	b, err := a.proof((*q.buf)[:0], collection, rkey)
	if err != nil {
		return broken(err)
	}
	*q.buf = b
	return answer{status: http.StatusOK, contentType: contentCAR, body: b, chunked: true}
}

// proof appends a CAR of the commit, the nodes that lead to a record, and the record.
func (a *account) proof(into []byte, collection syntax.NSID, rkey syntax.RecordKey) ([]byte, error) {
	a.mu.Lock()
	h, err := a.makeHead()
	r := a.shelves[collection].get(rkey)
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	blocks := []encode.Block{h.Blocks[len(h.Blocks)-1]}
	if blocks, err = h.Lead(blocks, []byte(collection.String()+"/"+rkey.String())); err != nil {
		return nil, fmt.Errorf("prove %s: %w", uriOf(a.did, collection, rkey), err)
	}
	if r != nil {
		blocks = append(blocks, encode.Block{CID: r.cid, Data: r.block})
	}
	return encode.CAR(into, h.CID, blocks), nil
}

// Lead collects the nodes that lead to a key, or to where it would be.
func (h *Head) Lead(into []encode.Block, key []byte) ([]encode.Block, error) {
	at := &h.Blocks[len(h.Blocks)-2].CID // the top comes last but for the commit
	for at != nil {
		b, err := h.find(*at)
		if err != nil {
			return nil, err
		}
		into = append(into, b)
		n, err := mst.NodeDataFromCBOR(bytes.NewReader(b.Data))
		if err != nil {
			return nil, err
		}
		var name []byte
		at = n.Left
		for _, e := range n.Entries {
			name = append(name[:e.PrefixLen], e.KeySuffix...)
			if order := bytes.Compare(name, key); order == 0 {
				return into, nil
			} else if order > 0 {
				break
			}
			at = e.Right
		}
	}
	return into, nil
}

func (h *Head) find(id cid.Cid) (encode.Block, error) {
	for _, b := range h.Blocks {
		if b.CID == id {
			return b, nil
		}
	}
	return encode.Block{}, fmt.Errorf("no node %s", id)
}
