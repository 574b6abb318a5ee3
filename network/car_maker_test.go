package network

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// carMaker puts CARs together block by block, sound or not.
type carMaker struct {
	tb     testing.TB
	key    atcrypto.PrivateKey
	blocks [][2]string // CID and content
}

func newCARMaker(tb testing.TB) *carMaker {
	tb.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		tb.Fatal(err)
	}
	return &carMaker{tb: tb, key: key}
}

func (m *carMaker) ident() Identity {
	m.tb.Helper()
	key, err := m.key.PublicKey()
	if err != nil {
		m.tb.Fatal(err)
	}
	return Identity{DID: alice, key: signingKey{found: true, suite: suiteMultikey, text: key.Multibase()}}
}

func idOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return linkPrefix + string(sum[:])
}

// put adds a block and gives its CID.
func (m *carMaker) put(data string) string {
	m.blocks = append(m.blocks, [2]string{idOf(data), data})
	return idOf(data)
}

// value is the block of the record {"n":n}.
func (m *carMaker) value(n byte) string { return m.put("\xa1\x61n\x18" + string(rune(0x20+n%0x40))) }

func cborHead(major byte, n uint64) string {
	switch {
	case n < 24:
		return string([]byte{major<<5 | byte(n)})
	case n < 1<<8:
		return string([]byte{major<<5 | 24, byte(n)})
	case n < 1<<16:
		return string(binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n)))
	default:
		return string(binary.BigEndian.AppendUint64([]byte{major<<5 | 27}, n))
	}
}

func cborLink(id string) string {
	if id == "" {
		return "\xf6"
	}
	return "\xd8\x2a" + cborHead(majorBytes, uint64(len(id)+1)) + "\x00" + id
}

// leaf is one entry of a node, with the node to its right.
type leaf struct {
	key, value, right string
	prefix            int64 // as it is written; negative ones too
}

func (l leaf) encode() string {
	prefix := cborHead(majorNumber, uint64(max(l.prefix, 0)))
	if l.prefix < 0 {
		prefix = cborHead(1, uint64(-l.prefix-1))
	}
	return "\xa4\x61k" + cborHead(majorBytes, uint64(len(l.key))) + l.key + "\x61p" + prefix +
		"\x61t" + cborLink(l.right) + "\x61v" + cborLink(l.value)
}

// compress leaves out of each key what it shares with the one before it.
func compress(leaves ...leaf) []leaf {
	last := ""
	for i, l := range leaves {
		n := mst.CountPrefixLen([]byte(last), []byte(l.key))
		leaves[i].key, leaves[i].prefix = l.key[n:], int64(n)
		last = l.key
	}
	return leaves
}

// compressed are the leaves of keys that all have one value.
func compressed(value string, keys ...string) []leaf {
	var leaves []leaf
	for _, key := range keys {
		leaves = append(leaves, leaf{key: key, value: value})
	}
	return compress(leaves...)
}

func nodeBytes(left string, leaves ...leaf) string {
	b := "\xa2\x61e" + cborHead(majorArray, uint64(len(leaves)))
	for _, l := range leaves {
		b += l.encode()
	}
	return b + "\x61l" + cborLink(left)
}

func (m *carMaker) node(left string, leaves ...leaf) string { return m.put(nodeBytes(left, leaves...)) }

// commit signs a commit over a tree after change has had its way with it.
func (m *carMaker) commit(tree string, change func(*repo.Commit)) string {
	m.tb.Helper()
	data, err := cid.Cast([]byte(tree))
	if err != nil {
		m.tb.Fatal(err)
	}
	c := repo.Commit{DID: alice.String(), Version: repo.ATPROTO_REPO_VERSION, Data: data, Rev: testRev}
	if change != nil {
		change(&c)
	}
	if err := c.Sign(m.key); err != nil {
		m.tb.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.MarshalCBOR(&b); err != nil {
		m.tb.Fatal(err)
	}
	return m.put(b.String())
}

func carHeader(roots ...string) string {
	b := "\xa2\x65roots" + cborHead(majorArray, uint64(len(roots)))
	for _, root := range roots {
		b += cborLink(root)
	}
	return frame(b + "\x67version\x01")
}

func frame(b string) string {
	return string(binary.AppendUvarint(nil, uint64(len(b)))) + b
}

// car is everything that was put, last things first: a reader must not count on
// any order.
func (m *carMaker) car(roots ...string) string {
	b := carHeader(roots...)
	for _, block := range slices.Backward(m.blocks) {
		b += frame(block[0] + block[1])
	}
	return b
}

// drop takes a block out again.
func (m *carMaker) drop(id string) {
	for i, b := range m.blocks {
		if b[0] == id {
			m.blocks = append(m.blocks[:i:i], m.blocks[i+1:]...)
			return
		}
	}
	m.tb.Fatalf("no block %x to drop", id)
}

// keys are n ascending keys of a collection that lie on a layer.
func keys(collection string, layer, n int) []string { return keysFrom(collection+"/k", layer, n) }

// keysFrom are n ascending keys with a beginning that lie on a layer.
func keysFrom(beginning string, layer, n int) []string {
	var found []string
	for i := 0; len(found) < n; i++ {
		if key := fmt.Sprintf("%s%07d", beginning, i); mst.HeightForKey([]byte(key)) == layer {
			found = append(found, key)
		}
	}
	return found
}

// low0 is a key of a collection that lies on the lowest layer.
func low0(collection string) string { return keys(collection, 0, 1)[0] }

// between is a key on a layer that lies between two keys as keys makes them.
func between(tb testing.TB, layer int, low, high string) string {
	tb.Helper()
	for i := range 100_000 {
		key := fmt.Sprintf("%s-%05d", low, i)
		if key > low && key < high && mst.HeightForKey([]byte(key)) == layer {
			return key
		}
	}
	tb.Fatalf("no key on layer %d between %s and %s", layer, low, high)
	return ""
}

// serveCAR serves a body as a repo.
func serveCAR(tb testing.TB, body string) Host {
	tb.Helper()
	return serve(tb, says(http.StatusOK, "application/vnd.ipld.car", body))
}
