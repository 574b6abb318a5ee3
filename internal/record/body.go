package record

import (
	"bytes"
	"crypto/sha256"
	encoding "encoding/base32"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Limits of one record, as the network's own software sets them.
const (
	MaxJSON  = 2 << 20 // bytes of a value as JSON
	MaxCBOR  = 1 << 20 // bytes of a value as DAG-CBOR
	MaxDepth = 128     // objects and arrays inside each other
)

var (
	// ErrMismatch says that a value is whole, and is not the one its CID names.
	ErrMismatch = errors.New("record value does not match its cid")
	// ErrUnproved says that a value is not the one its CID names as it was printed, and
	// may have been before. It comes with ErrMismatch.
	ErrUnproved = errors.New("its block may be the one that the cid names")
	// ErrInvalid says that something is not a record, a CID or a record's address at all.
	ErrInvalid = errors.New("invalid record")
	// ErrTooLarge says that a value is past MaxJSON or MaxCBOR.
	ErrTooLarge = errors.New("record too large")
)

// Body is a record's value as it is stored.
type Body struct {
	CID      cid.Cid // as claimed by the source, and recomputed when Verified
	Verified bool    // Data is canonical DAG-CBOR whose CID is CID; otherwise Data is JSON
	Plain    bool    // of a verified one: nothing in its texts has to be escaped in JSON
	Data     []byte
}

// Intact reports whether a verified body is still what its CID names. Of one that is
// not verified nobody can tell.
func (b Body) Intact() bool { return !b.Verified || hashed(b.CID) && matches(b.CID, b.Data) }

// FromCBOR reads a block of a repo's CAR. The hash is checked first, so a block
// that is not the claimed one is ErrMismatch whatever it holds. A block that is
// authentic but could not be told from its own JSON (it is not in canonical form, or has
// a map in it that looks like a link) is kept as JSON, unverified. The body shares no memory with block.
func FromCBOR(block []byte, claimed cid.Cid) (Body, error) {
	if !claimed.Defined() {
		return Body{}, fmt.Errorf("record without cid: %w", ErrInvalid)
	}
	if len(block) > MaxCBOR {
		return Body{}, fmt.Errorf("record %s: %d bytes of cbor: %w", claimed, len(block), ErrTooLarge)
	}
	if hashed(claimed) && !matches(claimed, block) {
		return Body{}, fmt.Errorf("record %s: %w", claimed, ErrMismatch)
	}
	value, err := new(decoder).decode(nil, block)
	if err != nil {
		return Body{}, fmt.Errorf("record %s: %w", claimed, err)
	}
	// The way there and back is the proof that JSON says everything the block says.
	e := newEncoder()
	defer e.release()
	back, err := e.encode(value)
	if err != nil {
		return Body{}, fmt.Errorf("record %s: %w", claimed, err)
	}
	if hashed(claimed) && !back.lost && bytes.Equal(back.out, block) {
		return Body{CID: claimed, Verified: true, Plain: !e.escapes, Data: bytes.Clone(block)}, nil
	}
	return Body{CID: claimed, Data: value}, nil
}

// JSON is the value as atproto's JSON: links as $link, bytes as $bytes, nothing
// escaped that need not be. An unverified value comes back as it was received.
// A verified one comes back so that FromJSON verifies it again.
func (b Body) JSON() ([]byte, error) {
	if !b.Verified {
		return b.Data, nil
	}
	return b.AppendJSON(nil)
}

// AppendJSON appends the value as JSON has it.
func (b Body) AppendJSON(dst []byte) ([]byte, error) {
	if !b.Verified {
		return append(dst, b.Data...), nil
	}
	dst, err := (&decoder{proven: true, plain: b.Plain}).decode(dst, b.Data)
	if err != nil {
		return nil, fmt.Errorf("print record %s: %w", b.CID, err)
	}
	return dst, nil
}

// AppendCID appends the body's CID as text.
func (b Body) AppendCID(dst []byte) []byte { return appendCID(dst, b.CID) }

// appendCID appends what c.String returns, without making a string of it.
func appendCID(dst []byte, c cid.Cid) []byte {
	if c.Version() != 1 {
		return append(dst, c.String()...) // of another alphabet
	}
	dst = append(dst, 'b') // multibase's mark of base32
	return base32.AppendEncode(dst, []byte(c.KeyString()))
}

// base32 is the alphabet of CIDs, as multibase has it.
var base32 = encoding.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(encoding.NoPadding) //nolint:gochecknoglobals // a table that is never changed

// maxCIDText bounds a CID before it is read, because one of its spellings takes
// a time that grows with the square of its length.
const maxCIDText = 256

func parseCID(s string) (cid.Cid, error) {
	if len(s) > maxCIDText {
		return cid.Undef, fmt.Errorf("%d characters are too many for a cid", len(s))
	}
	return cid.Decode(s)
}

// hashed reports whether c is of the one form that records have: CIDv1, DAG-CBOR,
// SHA-256. Of another form nothing is recomputed.
func hashed(c cid.Cid) bool {
	p := c.Prefix()
	return p.Version == 1 && p.Codec == cid.DagCBOR && p.MhType == multihash.SHA2_256 && p.MhLength == sha256.Size
}

// matches reports whether data is what c, a hashed CID, names: its digest is its tail.
func matches(c cid.Cid, data []byte) bool {
	sum := sha256.Sum256(data)
	return bytes.HasSuffix(c.Bytes(), sum[:])
}
