// Package repotest makes CARs of repos block by block, sound or not, by an encoder of its own.
package repotest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// DID is whose repos are made.
const DID = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")

// Rev is the revision of repos.
const Rev = "3kgk4qs6aa22a"

// linkPrefix begins the CIDs of a repo: CIDv1, DAG-CBOR, SHA-256, 32 bytes.
const linkPrefix = "\x01\x71\x12\x20"

// Major types of CBOR.
const (
	majorNumber = 0
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
)

// Maker puts CARs together block by block, sound or not.
type Maker struct {
	TB     testing.TB
	Key    atcrypto.PrivateKey
	Blocks [][2]string // CID and content
}

// New makes a maker with a key of its own.
func New(tb testing.TB) *Maker {
	tb.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		tb.Fatal(err)
	}
	return &Maker{TB: tb, Key: key}
}

// PublicKey is what commits are signed for.
func (m *Maker) PublicKey() atcrypto.PublicKey {
	m.TB.Helper()
	key, err := m.Key.PublicKey()
	if err != nil {
		m.TB.Fatal(err)
	}
	return key
}

// IDOf is the CID of a block.
func IDOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return linkPrefix + string(sum[:])
}

// Put adds a block and returns its CID.
func (m *Maker) Put(data string) string {
	m.Blocks = append(m.Blocks, [2]string{IDOf(data), data})
	return IDOf(data)
}

// Value adds the block of the record {"n":n}.
func (m *Maker) Value(n byte) string { return m.Put("\xa1\x61n\x18" + string(rune(0x20+n%0x40))) }

// BytesHead is the head of a CBOR byte string.
func BytesHead(n uint64) string { return cborHead(majorBytes, n) }

// TextHead is the head of a CBOR text.
func TextHead(n uint64) string { return cborHead(majorText, n) }

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

// Leaf is one entry of a node, with the node to its right.
type Leaf struct {
	Key, Value, Right string
	Prefix            int64 // as it is written; negative ones too
}

func (l Leaf) encode() string {
	prefix := cborHead(majorNumber, uint64(max(l.Prefix, 0)))
	if l.Prefix < 0 {
		prefix = cborHead(1, uint64(-l.Prefix-1))
	}
	return "\xa4\x61k" + cborHead(majorBytes, uint64(len(l.Key))) + l.Key + "\x61p" + prefix +
		"\x61t" + cborLink(l.Right) + "\x61v" + cborLink(l.Value)
}

// Compress leaves out of each key what it shares with the one before it.
func Compress(leaves ...Leaf) []Leaf {
	last := ""
	for i, l := range leaves {
		n := mst.CountPrefixLen([]byte(last), []byte(l.Key))
		leaves[i].Key, leaves[i].Prefix = l.Key[n:], int64(n)
		last = l.Key
	}
	return leaves
}

// Compressed are the leaves of keys that all have one value.
func Compressed(value string, keys ...string) []Leaf {
	var leaves []Leaf
	for _, key := range keys {
		leaves = append(leaves, Leaf{Key: key, Value: value})
	}
	return Compress(leaves...)
}

// NodeBytes is the block of a node.
func NodeBytes(left string, leaves ...Leaf) string {
	var b strings.Builder
	b.WriteString("\xa2\x61e" + cborHead(majorArray, uint64(len(leaves))))
	for _, l := range leaves {
		b.WriteString(l.encode())
	}
	return b.String() + "\x61l" + cborLink(left)
}

// Node adds a node and returns its CID.
func (m *Maker) Node(left string, leaves ...Leaf) string { return m.Put(NodeBytes(left, leaves...)) }

// Commit signs a commit over a tree after change has had its way with it.
func (m *Maker) Commit(tree string, change func(*repo.Commit)) string {
	m.TB.Helper()
	data, err := cid.Cast([]byte(tree))
	if err != nil {
		m.TB.Fatal(err)
	}
	c := repo.Commit{DID: DID.String(), Version: repo.ATPROTO_REPO_VERSION, Data: data, Rev: Rev}
	if change != nil {
		change(&c)
	}
	if err := c.Sign(m.Key); err != nil {
		m.TB.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.MarshalCBOR(&b); err != nil {
		m.TB.Fatal(err)
	}
	return m.Put(b.String())
}

// Header is the header of a CAR.
func Header(roots ...string) string {
	var b strings.Builder
	b.WriteString("\xa2\x65roots" + cborHead(majorArray, uint64(len(roots))))
	for _, root := range roots {
		b.WriteString(cborLink(root))
	}
	return Frame(b.String() + "\x67version\x01")
}

// Frame is a section of a CAR: its length and its bytes.
func Frame(b string) string {
	return string(binary.AppendUvarint(nil, uint64(len(b)))) + b
}

// CAR is everything that was put, last things first: a reader must not count on
// any order.
func (m *Maker) CAR(roots ...string) string {
	var b strings.Builder
	b.WriteString(Header(roots...))
	for _, block := range slices.Backward(m.Blocks) {
		b.WriteString(Frame(block[0] + block[1]))
	}
	return b.String()
}

// Drop takes a block out again.
func (m *Maker) Drop(id string) {
	for i, b := range m.Blocks {
		if b[0] == id {
			m.Blocks = append(m.Blocks[:i:i], m.Blocks[i+1:]...)
			return
		}
	}
	m.TB.Fatalf("no block %x to drop", id)
}

// Keys are n ascending keys of a collection that lie on a layer.
func Keys(collection string, layer, n int) []string { return KeysFrom(collection+"/k", layer, n) }

// KeysFrom are n ascending keys with a beginning that lie on a layer.
func KeysFrom(beginning string, layer, n int) []string {
	var found []string
	for i := 0; len(found) < n; i++ {
		if key := fmt.Sprintf("%s%07d", beginning, i); mst.HeightForKey([]byte(key)) == layer {
			found = append(found, key)
		}
	}
	return found
}

// FirstKey is a key of a collection that lies on the lowest layer.
func FirstKey(collection string) string { return Keys(collection, 0, 1)[0] }

// Between is a key on a layer that lies between two keys as Keys makes them.
func Between(tb testing.TB, layer int, low, high string) string {
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
