package record

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"
)

// FromJSON reads one value, as a Verifier does that reads no other.
func FromJSON(value []byte, claimed string) (Body, error) {
	return new(Verifier).FromJSON(value, claimed)
}

// Verifier reads values that hosts printed as JSON. One is made for each repo: it bounds
// what is hashed for values that no hash proves. The zero Verifier is ready.
type Verifier struct {
	vain int // bytes that were hashed in vain
}

// FromJSON reads a value that a host printed as JSON, with the CID it claims for
// it. A value that has another CID is ErrMismatch, but only when the JSON says
// for certain what was hashed: otherwise it is kept, unverified, as received.
//
// Whole numbers may have been floats, and are tried as such. Where no way fits the CID,
// the error is ErrUnproved too: the record's block tells. If that cannot be had, the
// value is to be kept as the body beside the error, where that has data: there were more
// ways than were tried. Without data it is to be rejected, and so is a value outside of
// atproto's data model, which JSON may only have made of one inside.
//
// The body shares no memory with value.
func (v *Verifier) FromJSON(value []byte, claimed string) (Body, error) {
	c, err := parseCID(claimed)
	if err != nil {
		return Body{}, fmt.Errorf("record cid %.100q: %w: %w", claimed, ErrInvalid, err)
	}
	e := newEncoder()
	defer e.release()
	enc, err := e.encode(value)
	if err != nil {
		return Body{}, fmt.Errorf("record %s: %w", c, err)
	}
	known := hashed(c) && !enc.lost // what was hashed, but for some numbers
	block, left := []byte(nil), doubtNone
	if known {
		block, left = v.prove(enc.out, c)
	}
	switch {
	case block != nil && !enc.odd && bytes.Equal(block, enc.out):
		return Body{CID: c, Verified: true, Plain: !e.escapes, Data: block}, nil
	case block != nil: // with floats, which our own JSON may spell at greater length
		return FromCBOR(block, c)
	case !enc.outside && left == doubtNone && e.unpaired:
		return Body{}, fmt.Errorf("record %s: half a surrogate pair: %w", c, ErrInvalid)
	case !enc.outside && left == doubtNone && known && !enc.odd:
		return Body{}, fmt.Errorf("record %s: %w", c, ErrMismatch)
	case !enc.outside && !e.unpaired && (enc.odd || !known):
		return received(c, value), nil
	}
	err = fmt.Errorf("record %s: %w: %w", c, ErrMismatch, ErrUnproved)
	if left == doubtMore && !e.unpaired {
		return received(c, value), err
	}
	return Body{CID: c}, err
}

// received is a value as it came.
func received(c cid.Cid, value []byte) Body {
	return Body{CID: c, Data: bytes.Clone(bytes.Trim(value, jsonSpace))}
}

// doubt is what remains unknown of a block that no hash proves.
type doubt int

const (
	doubtNone  doubt = iota // nothing in it could have been anything else
	doubtTried              // some numbers could, and all ways were tried
	doubtMore               // and not all ways were tried
)

// prove finds the block that the CID names among those that could have been printed as
// block was.
func (v *Verifier) prove(block []byte, c cid.Cid) ([]byte, doubt) {
	if matches(c, block) {
		return bytes.Clone(block), doubtNone
	}
	w, ok := waysOf(block)
	switch {
	case !ok:
		return nil, doubtMore
	case len(w.numbers) == 0:
		return nil, doubtNone
	}
	found, hashed, all := w.find(c, min(maxWays-1, max(1, (maxVain-v.vain)/w.longest())))
	switch {
	case found != nil:
		return found, doubtNone
	case all:
		v.vain += hashed
		return nil, doubtTried
	default:
		v.vain += hashed
		return nil, doubtMore
	}
}
