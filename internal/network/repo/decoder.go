package repo

import (
	"errors"
	"fmt"
)

// The kinds of DAG-CBOR values that a repo's own blocks are made of.
const (
	majorNumber = 0
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6

	tagLink   = 42
	cborNull  = 0xf6
	linkBegin = 0x00 // before the bytes of every CID
)

var errCutCBOR = errors.New("cbor ends too early")

// decoder reads DAG-CBOR from memory: what is asked for, or an error that stays.
// It allocates nothing, and believes no length that the input does not hold.
type decoder struct {
	in  []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.in = nil
}

// head takes the first bytes of a value off: its kind and its number or length.
func (d *decoder) head(major byte) uint64 {
	if d.err != nil {
		return 0
	}
	if len(d.in) == 0 {
		d.err = errCutCBOR
		return 0
	}
	first := d.in[0]
	if first>>5 != major {
		d.fail("cbor kind %d instead of %d", first>>5, major)
		return 0
	}
	n := uint64(first & 0x1f)
	d.in = d.in[1:]
	if n < 24 {
		return n
	}
	if n > 27 {
		d.fail("cbor of no definite length")
		return 0
	}
	size := 1 << (n - 24)
	if len(d.in) < size {
		d.fail("%w", errCutCBOR)
		return 0
	}
	n = 0
	for _, b := range d.in[:size] {
		n = n<<8 | uint64(b)
	}
	d.in = d.in[size:]
	if size == 1 && n < 24 || size > 1 && n>>(4*size) == 0 {
		d.fail("cbor number longer than it need be")
	}
	return n
}

// open takes the head of an array or a map off, and gives the number of its items.
func (d *decoder) open(major byte) int {
	n := d.head(major)
	if n > uint64(len(d.in)) { // every item has a byte at least
		d.fail("%w", errCutCBOR)
		return 0
	}
	return int(n)
}

func (d *decoder) number() uint64 { return d.head(majorNumber) }

// take takes a string of bytes or text off, as a slice of the input.
func (d *decoder) take(major byte) []byte {
	n := d.head(major)
	if n > uint64(len(d.in)) {
		d.fail("%w", errCutCBOR)
	}
	if d.err != nil {
		return nil
	}
	b := d.in[:n:n]
	d.in = d.in[n:]
	return b
}

// null takes a null off, if there is one.
func (d *decoder) null() bool {
	if len(d.in) == 0 || d.in[0] != cborNull {
		return false
	}
	d.in = d.in[1:]
	return true
}

// link takes a CID off, and gives its bytes.
func (d *decoder) link() []byte {
	if tag := d.head(majorTag); d.err == nil && tag != tagLink {
		d.fail("cbor tag %d", tag)
	}
	b := d.take(majorBytes)
	if d.err == nil && (len(b) < 2 || b[0] != linkBegin) {
		d.fail("no cid in a link")
	}
	if d.err != nil {
		return nil
	}
	return b[1:]
}

// name takes a member's name off, which must be the one expected.
func (d *decoder) name(want string) {
	if got := d.take(majorText); d.err == nil && string(got) != want {
		d.fail("member %.20q instead of %q", got, want)
	}
}

// end reports whether anything is left.
func (d *decoder) end() {
	if d.err == nil && len(d.in) > 0 {
		d.fail("%d bytes after the end", len(d.in))
	}
}
