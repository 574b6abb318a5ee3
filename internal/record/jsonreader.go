package record

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonSpace is the white space of JSON.
const jsonSpace = " \t\r\n"

// jsonReader is the tokenizer of JSON. It is strict: what it takes is JSON to the letter,
// but for UTF-8, which it does not check.
type jsonReader struct {
	in       []byte
	pos      int
	escapes  bool   // a string had escapes
	unpaired bool   // a string held half a surrogate pair, which no text can hold
	unquoted []byte // the latest string that had escapes
}

func (r *jsonReader) bad(what string) error { return fmt.Errorf("json at byte %d: %s", r.pos, what) }

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

// first stands behind an opening bracket and reports whether anything is inside.
func (r *jsonReader) first(closing byte) bool {
	r.space()
	if r.peek() == closing {
		r.pos++
		return false
	}
	return true
}

// next stands behind an item and reports whether another one follows.
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
		return false, r.bad("no comma and no end")
	}
}

// numeral takes a number off, and reports whether it is written as an integer.
func (r *jsonReader) numeral() (token []byte, whole bool, err error) {
	start := r.pos
	if r.peek() == '-' {
		r.pos++
	}
	if r.peek() == '0' {
		r.pos++
	} else if !r.digits() {
		return nil, false, r.bad("no digit")
	}
	whole = true
	if r.peek() == '.' {
		whole = false
		r.pos++
		if !r.digits() {
			return nil, false, r.bad("no digit after the point")
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		whole = false
		r.pos++
		if c := r.peek(); c == '+' || c == '-' {
			r.pos++
		}
		if !r.digits() {
			return nil, false, r.bad("no digit in the exponent")
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

// string reads a string. What it returns is good until the next string.
func (r *jsonReader) string() ([]byte, error) {
	raw, escaped, err := r.skipString()
	if escaped && err == nil {
		r.escapes = true
		return r.unescape(raw), nil
	}
	return raw, err
}

// skipString reads a string as it stands between its quotes, and reports whether it has
// escapes.
func (r *jsonReader) skipString() (raw []byte, escaped bool, err error) {
	r.pos++
	start := r.pos
	for ; r.pos < len(r.in); r.pos++ {
		switch c := r.in[r.pos]; {
		case c == '"':
			r.pos++
			return r.in[start : r.pos-1], escaped, nil
		case c < ' ':
			return nil, false, r.bad("control character in a string")
		case c == '\\':
			escaped = true
			r.pos++
			switch r.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex(r.in[r.pos+1:]); !ok {
					return nil, false, r.bad("bad \\u escape")
				}
				r.pos += 4
			default:
				return nil, false, r.bad("unknown escape")
			}
		}
	}
	return nil, false, r.bad("string without end")
}

// unescape replaces the escapes of a string that skipString has read.
func (r *jsonReader) unescape(raw []byte) []byte {
	out := r.unquoted[:0]
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			r.unquoted = append(out, raw...)
			return r.unquoted
		}
		out = append(out, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			var u rune
			u, raw = r.unicode(raw)
			out = utf8.AppendRune(out, u)
			continue
		}
		out = append(out, c)
	}
}

// unicode reads what stands behind \u, and the other half of a surrogate pair.
func (r *jsonReader) unicode(raw []byte) (c rune, rest []byte) {
	c, _ = hex(raw)
	raw = raw[4:]
	if !utf16.IsSurrogate(c) {
		return c, raw
	}
	if bytes.HasPrefix(raw, []byte(`\u`)) {
		low, _ := hex(raw[2:])
		if pair := utf16.DecodeRune(c, low); pair != utf8.RuneError {
			return pair, raw[6:]
		}
	}
	r.unpaired = true
	return utf8.RuneError, raw
}

// hex reads four hexadecimal digits.
func hex(in []byte) (rune, bool) {
	if len(in) < 4 {
		return 0, false
	}
	var n rune
	for _, c := range in[:4] {
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
