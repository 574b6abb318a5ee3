package record

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonSpace is the white space of JSON.
const jsonSpace = " \t\r\n"

// jsonReader takes JSON's tokens off in, which is valid UTF-8.
type jsonReader struct {
	in       []byte
	pos      int
	escapes  bool   // a string had escapes
	unpaired bool   // a string held half a surrogate pair, which no text can hold
	unquoted []byte // the latest string that had escapes
}

func (r *jsonReader) invalid(what string) error {
	return fmt.Errorf("json at byte %d: %s: %w", r.pos, what, ErrInvalid)
}

// peek is the next byte, or 0 at the end: a byte that begins nothing in JSON.
func (r *jsonReader) peek() byte {
	if r.pos < len(r.in) {
		return r.in[r.pos]
	}
	return 0
}

func (r *jsonReader) space() {
	for r.pos < len(r.in) {
		switch r.in[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

func (r *jsonReader) literal(word string) bool {
	if !bytes.HasPrefix(r.in[r.pos:], []byte(word)) {
		return false
	}
	r.pos += len(word)
	return true
}

// first stands behind an opening bracket and tells whether anything is inside.
func (r *jsonReader) first(closing byte) bool {
	r.space()
	if r.peek() == closing {
		r.pos++
		return false
	}
	return true
}

// next stands behind an item and tells whether another one follows.
func (r *jsonReader) next(closing byte) (bool, error) {
	r.space()
	switch r.peek() {
	case ',':
		r.pos++
		r.space()
		return true, nil
	case closing:
		r.pos++
		return false, nil
	default:
		return false, r.invalid("no comma and no end")
	}
}

// numeral takes a number off, and tells whether it is written as an integer.
func (r *jsonReader) numeral() (token []byte, whole bool, err error) {
	start := r.pos
	if r.peek() == '-' {
		r.pos++
	}
	if r.peek() == '0' {
		r.pos++
	} else if !r.digits() {
		return nil, false, r.invalid("no digit")
	}
	whole = true
	if r.peek() == '.' {
		whole = false
		r.pos++
		if !r.digits() {
			return nil, false, r.invalid("no digit after the point")
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		whole = false
		r.pos++
		if c := r.peek(); c == '+' || c == '-' {
			r.pos++
		}
		if !r.digits() {
			return nil, false, r.invalid("no digit in the exponent")
		}
	}
	return r.in[start:r.pos], whole, nil
}

func (r *jsonReader) digits() bool {
	start := r.pos
	for r.pos < len(r.in) && r.in[r.pos] >= '0' && r.in[r.pos] <= '9' {
		r.pos++
	}
	return r.pos > start
}

// string takes a string off. What it returns is good until the next string.
func (r *jsonReader) string() ([]byte, error) {
	r.pos++
	start := r.pos
	for ; r.pos < len(r.in); r.pos++ {
		switch c := r.in[r.pos]; {
		case c == '"':
			r.pos++
			return r.in[start : r.pos-1], nil
		case c == '\\':
			r.escapes = true
			r.unquoted = append(r.unquoted[:0], r.in[start:r.pos]...)
			return r.escaped()
		case c < ' ':
			return nil, r.invalid("control character in a string")
		}
	}
	return nil, r.invalid("string without end")
}

// escaped goes on in a string at its first backslash.
func (r *jsonReader) escaped() ([]byte, error) {
	for r.pos < len(r.in) {
		c := r.in[r.pos]
		r.pos++
		switch {
		case c == '"':
			return r.unquoted, nil
		case c < ' ':
			return nil, r.invalid("control character in a string")
		case c != '\\':
			r.unquoted = append(r.unquoted, c)
			continue
		}
		c = r.peek()
		r.pos++
		switch c {
		case '"', '\\', '/':
			r.unquoted = append(r.unquoted, c)
		case 'b':
			r.unquoted = append(r.unquoted, '\b')
		case 'f':
			r.unquoted = append(r.unquoted, '\f')
		case 'n':
			r.unquoted = append(r.unquoted, '\n')
		case 'r':
			r.unquoted = append(r.unquoted, '\r')
		case 't':
			r.unquoted = append(r.unquoted, '\t')
		case 'u':
			if err := r.unicode(); err != nil {
				return nil, err
			}
		default:
			return nil, r.invalid("unknown escape")
		}
	}
	return nil, r.invalid("string without end")
}

// unicode goes on behind \u.
func (r *jsonReader) unicode() error {
	c, ok := r.hex(r.pos)
	if !ok {
		return r.invalid("bad \\u escape")
	}
	r.pos += 4
	if utf16.IsSurrogate(c) {
		pair := rune(utf8.RuneError)
		if bytes.HasPrefix(r.in[r.pos:], []byte(`\u`)) {
			if low, ok := r.hex(r.pos + 2); ok {
				pair = utf16.DecodeRune(c, low)
			}
		}
		if pair == utf8.RuneError {
			r.unpaired = true
		} else {
			r.pos += 6
		}
		c = pair
	}
	r.unquoted = utf8.AppendRune(r.unquoted, c)
	return nil
}

func (r *jsonReader) hex(at int) (rune, bool) {
	if at+4 > len(r.in) {
		return 0, false
	}
	var n rune
	for _, c := range r.in[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | rune(c)
	}
	return n, true
}
