package encode

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/ipfs/go-cid"
)

// Block is one entry of a CAR.
type Block struct {
	CID  cid.Cid
	Data []byte
}

// CAR writes a CAR of blocks in no helpful order, and the commit not first, as real hosts
// do: a reader must not count on either.
func CAR(into []byte, root cid.Cid, blocks []Block) []byte {
	slices.SortFunc(blocks, func(x, y Block) int { return bytes.Compare(x.CID.Bytes(), y.CID.Bytes()) })
	blocks = slices.CompactFunc(blocks, func(x, y Block) bool { return x.CID == y.CID })
	if len(blocks) > 1 && blocks[0].CID == root {
		blocks[0], blocks[1] = blocks[1], blocks[0]
	}
	into = CARHeader(into, root)
	for _, b := range blocks {
		id := b.CID.Bytes()
		into = binary.AppendUvarint(into, uint64(len(id)+len(b.Data)))
		into = append(append(into, id...), b.Data...)
	}
	return into
}

// CARHeader writes {"roots":[root],"version":1} in DAG-CBOR behind its
// length: the only shape that a repo's CAR has.
func CARHeader(into []byte, root cid.Cid) []byte {
	id := root.Bytes()
	header := append([]byte{0xa2, 0x65}, "roots"...)
	header = append(header, 0x81, 0xd8, 0x2a, 0x58, byte(len(id)+1), 0x00)
	header = append(header, id...)
	header = append(append(header, 0x67), "version"...)
	header = append(header, 0x01)
	into = binary.AppendUvarint(into, uint64(len(header)))
	return append(into, header...)
}
