package record

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// decoder prints DAG-CBOR as atproto's JSON in one pass. It takes any order of
// keys: whether a block is canonical shows when its JSON is encoded again.
type decoder struct {
	in     []byte
	pos    int
	out    []byte
	proven bool // in was decoded before: its texts are UTF-8
	plain  bool // and nothing in them has to be escaped
}

// decode appends a record's block, printed. Its errors are ErrInvalid.
func (d *decoder) decode(dst, block []byte) ([]byte, error) {
	d.in, d.out = block, slices.Grow(dst, len(block)+len(block)/4)
	if len(block) == 0 || block[0]&0xe0 != majorMap {
		return nil, fmt.Errorf("cbor is not a map: %w", ErrInvalid)
	}
	if err := d.value(1); err != nil {
		return nil, err
	}
	if d.pos != len(d.in) {
		return nil, d.invalid("something after the map")
	}
	return d.out, nil
}

func (d *decoder) invalid(what string) error {
	return fmt.Errorf("cbor at byte %d: %s: %w", d.pos, what, ErrInvalid)
}

// head takes the first bytes of an item off.
func (d *decoder) head() (major byte, n uint64, err error) {
	if d.pos >= len(d.in) {
		return 0, 0, d.invalid("cut off")
	}
	first := d.in[d.pos]
	d.pos++
	major, n = first&0xe0, uint64(first&0x1f)
	if n < 24 {
		return major, n, nil
	}
	if n > 27 {
		return 0, 0, d.invalid("indefinite or reserved length")
	}
	width := 1 << (n - 24)
	rest := d.in[d.pos:]
	if len(rest) < width {
		return 0, 0, d.invalid("cut off")
	}
	d.pos += width
	switch width {
	case 1:
		n = uint64(rest[0])
	case 2:
		n = uint64(binary.BigEndian.Uint16(rest))
	case 4:
		n = uint64(binary.BigEndian.Uint32(rest))
	default:
		n = binary.BigEndian.Uint64(rest)
	}
	return major, n, nil
}

// take gives the next n bytes of the input.
func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.in)-d.pos) {
		return nil, d.invalid("cut off")
	}
	d.pos += int(n)
	return d.in[d.pos-int(n) : d.pos], nil
}

func (d *decoder) value(depth int) error {
	at := d.pos
	major, n, err := d.head()
	if err != nil {
		return err
	}
	switch major {
	case majorUint, majorNegint:
		if n > math.MaxInt64 {
			return d.invalid("integer past 64 bits")
		}
		i := int64(n)
		if major == majorNegint {
			i = -1 - i
		}
		d.out = strconv.AppendInt(d.out, i, 10)
		return nil
	case majorBytes:
		data, err := d.take(n)
		if err != nil {
			return err
		}
		d.out = append(d.out, `{"$bytes":"`...)
		d.out = base64.RawStdEncoding.AppendEncode(d.out, data)
		d.out = append(d.out, `"}`...)
		return nil
	case majorText:
		s, err := d.take(n)
		if err != nil {
			return err
		}
		return d.text(s)
	case majorArray, majorMap:
		if depth > MaxDepth {
			return d.invalid("nested too deeply")
		}
		if major == majorArray {
			return d.array(n, depth)
		}
		return d.object(n, depth)
	case majorTag:
		return d.link(n)
	default:
		return d.simple(d.in[at], n)
	}
}

func (d *decoder) array(n uint64, depth int) error {
	d.out = append(d.out, '[')
	for i := range n {
		if i > 0 {
			d.out = append(d.out, ',')
		}
		if err := d.value(depth + 1); err != nil {
			return err
		}
	}
	d.out = append(d.out, ']')
	return nil
}

func (d *decoder) object(n uint64, depth int) error {
	d.out = append(d.out, '{')
	for i := range n {
		if i > 0 {
			d.out = append(d.out, ',')
		}
		major, size, err := d.head()
		if err != nil {
			return err
		}
		if major != majorText {
			return d.invalid("key is no text")
		}
		key, err := d.take(size)
		if err != nil {
			return err
		}
		if err := d.text(key); err != nil {
			return err
		}
		d.out = append(d.out, ':')
		if err := d.value(depth + 1); err != nil {
			return err
		}
	}
	d.out = append(d.out, '}')
	return nil
}

func (d *decoder) link(tag uint64) error {
	if tag != tagLink {
		return d.invalid("unknown tag")
	}
	major, n, err := d.head()
	if err != nil {
		return err
	}
	data, err := d.take(n)
	if err != nil {
		return err
	}
	if major != majorBytes || len(data) == 0 || data[0] != 0 {
		return d.invalid("link is no cid")
	}
	c, err := cid.Cast(data[1:])
	if err != nil {
		return fmt.Errorf("cbor at byte %d: link: %w: %w", d.pos, ErrInvalid, err)
	}
	d.out = append(appendCID(append(d.out, `{"$link":"`...), c), `"}`...)
	return nil
}

func (d *decoder) simple(first byte, n uint64) error {
	switch first {
	case simpleFalse:
		d.out = append(d.out, "false"...)
	case simpleTrue:
		d.out = append(d.out, "true"...)
	case simpleNull:
		d.out = append(d.out, "null"...)
	case float16Head:
		return d.float(float16(n))
	case float32Head:
		return d.float(float64(math.Float32frombits(uint32(n))))
	case float64Head:
		return d.float(math.Float64frombits(n))
	default:
		return d.invalid("unknown simple value")
	}
	return nil
}

// float prints a number so that it is a float when the JSON is read again: with a point
// or an exponent, which integers have not.
func (d *decoder) float(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return d.invalid("number that json cannot say")
	}
	format, point := byte('f'), ""
	if size := math.Abs(f); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	} else if f == math.Trunc(f) {
		point = ".0"
	}
	d.out = append(strconv.AppendFloat(d.out, f, format, -1, 64), point...)
	return nil
}

// text prints a string in its shortest form, so that JSON that was read never
// grows when it is printed again.
func (d *decoder) text(s []byte) error {
	if !d.proven && !utf8.Valid(s) {
		return d.invalid("text is not utf-8")
	}
	if d.plain || plain(s) {
		d.out = append(append(append(d.out, '"'), s...), '"')
		return nil
	}
	const hex = "0123456789abcdef"
	d.out = append(d.out, '"')
	done := 0
	for i := 0; i < len(s); i++ {
		for len(s)-i > 8 && special(binary.LittleEndian.Uint64(s[i:]))&high == 0 {
			i += 8
		}
		c := s[i]
		if !escapes(c) {
			continue
		}
		d.out = append(d.out, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			d.out = append(d.out, '\\', c)
		case '\b':
			d.out = append(d.out, `\b`...)
		case '\f':
			d.out = append(d.out, `\f`...)
		case '\n':
			d.out = append(d.out, `\n`...)
		case '\r':
			d.out = append(d.out, `\r`...)
		case '\t':
			d.out = append(d.out, `\t`...)
		default:
			d.out = append(d.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	d.out = append(append(d.out, s[done:]...), '"')
	return nil
}

// plain reports whether s can stand in a JSON string as it is. Nearly all bytes of an
// index are text, and most texts are plain: it looks at many bytes at once, at some of
// them twice.
func plain(s []byte) bool {
	var found uint64
	switch n := len(s); {
	case n >= 8:
		i := 0
		for ; n-i >= 32; i += 32 {
			w := s[i:][:32]
			found |= special(binary.LittleEndian.Uint64(w)) | special(binary.LittleEndian.Uint64(w[8:])) |
				special(binary.LittleEndian.Uint64(w[16:])) | special(binary.LittleEndian.Uint64(w[24:]))
		}
		for ; n-i >= 8; i += 8 {
			found |= special(binary.LittleEndian.Uint64(s[i:]))
		}
		found |= special(binary.LittleEndian.Uint64(s[n-8:]))
	case n >= 4:
		found = special(uint64(binary.LittleEndian.Uint32(s)) | uint64(binary.LittleEndian.Uint32(s[n-4:]))<<32)
	default:
		return !slices.ContainsFunc(s, escapes)
	}
	return found&high == 0
}

// escapes reports whether c cannot stand in a JSON string as it is.
func escapes(c byte) bool { return c < ' ' || c == '"' || c == '\\' }

// high are the bits of special that mean something.
const high = 0x8080808080808080

// special has a high bit if one of eight bytes is such that escapes is true of it.
func special(x uint64) uint64 {
	const each = 0x0101010101010101
	// With a bit turned, a quote stands right behind the control characters, and no
	// other character comes among them. To take away borrows from bytes below only.
	low, backslash := x^2*each, x^'\\'*each
	return ((low - (' '+1)*each) | (backslash - each)) &^ x
}
