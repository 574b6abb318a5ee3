package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// maxDepth is how deep the answers that we read as a whole may nest.
	maxDepth = 128
	// maxSkipDepth is how deep a value may nest that is only passed on. It is
	// larger, so that one monstrous record does not hide its whole page: the
	// record alone is refused where it is read.
	maxSkipDepth = 64 << 10
	// maxCursor bounds what goes back into a URL and into a row.
	maxCursor = 4 << 10
)

// scanner reads JSON strictly and in one pass, and hands out values as slices of
// the input. It never recurses into what it does not know.
type scanner struct {
	in    []byte
	pos   int
	stack []byte // closing brackets of what skip is inside of
}

// scan reads a body that must be one JSON object and nothing else.
func scan(body []byte, member func(s *scanner, key string) error) error {
	s := &scanner{in: body}
	s.space()
	if s.peek() != '{' {
		return errors.New("not a json object")
	}
	if err := s.object(func(key string) error { return member(s, key) }); err != nil {
		return err
	}
	return s.end()
}

// shallow tells whether b is one JSON value, and nests no deeper than maxDepth:
// whether it may be given to encoding/json.
func shallow(b []byte) bool {
	s := &scanner{in: b}
	s.space()
	return s.skip(maxDepth) == nil && s.end() == nil
}

func (s *scanner) bad(what string) error { return fmt.Errorf("json at byte %d: %s", s.pos, what) }

func (s *scanner) end() error {
	if s.space(); s.pos != len(s.in) {
		return s.bad("something after the end")
	}
	return nil
}

// peek is the next byte, or 0 at the end: a byte that begins nothing in JSON.
func (s *scanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.in) {
		switch s.in[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// object calls member for each member, which must take the value off. It stands at the bracket.
func (s *scanner) object(member func(key string) error) error {
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		key, err := s.key()
		if err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		if more, err := s.next('}'); err != nil || !more {
			return err
		}
	}
}

// array calls item for each item, which must take it off. It stands at the bracket.
func (s *scanner) array(item func() error) error {
	s.pos++
	if s.space(); s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if more, err := s.next(']'); err != nil || !more {
			return err
		}
	}
}

func (s *scanner) next(closing byte) (bool, error) {
	s.space()
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true, nil
	case closing:
		s.pos++
		return false, nil
	default:
		return false, s.bad("no comma and no end")
	}
}

// key takes a member's name and the colon off.
func (s *scanner) key() (string, error) {
	if s.peek() != '"' {
		return "", s.bad("no member name")
	}
	key, err := s.text()
	if err != nil {
		return "", err
	}
	return key, s.colon()
}

func (s *scanner) colon() error {
	if s.space(); s.peek() != ':' {
		return s.bad("no colon")
	}
	s.pos++
	s.space()
	return nil
}

// text takes a string off; anything else is taken off too, and is no string.
func (s *scanner) text() (string, error) {
	raw, err := s.value()
	if err != nil || raw[0] != '"' {
		return "", err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var v string
	err = json.Unmarshal(raw, &v)
	return v, err
}

// cursor takes a cursor off: a string, or null for none.
func (s *scanner) cursor() (string, error) {
	if c := s.peek(); c != '"' && c != 'n' {
		return "", s.bad("cursor is no string")
	}
	cursor, err := s.text()
	if err == nil && len(cursor) > maxCursor {
		err = fmt.Errorf("cursor of %d bytes", len(cursor))
	}
	return cursor, err
}

// value takes any value off, unread.
func (s *scanner) value() ([]byte, error) {
	start := s.pos
	if err := s.skip(maxSkipDepth); err != nil {
		return nil, err
	}
	return s.in[start:s.pos:s.pos], nil
}

// skip passes over one value of any kind, without recursion.
func (s *scanner) skip(depth int) error {
	s.stack = s.stack[:0]
	for {
		opened, err := s.enter(depth)
		if err != nil {
			return err
		}
		for !opened && len(s.stack) > 0 {
			closing := s.stack[len(s.stack)-1]
			more, err := s.next(closing)
			if err != nil {
				return err
			}
			if more {
				if opened = true; closing == '}' {
					err = s.skipKey()
				}
				if err != nil {
					return err
				}
				continue
			}
			s.stack = s.stack[:len(s.stack)-1]
		}
		if len(s.stack) == 0 {
			return nil
		}
	}
}

// enter passes over a scalar or an empty container, or into a container. It
// tells whether a value follows.
func (s *scanner) enter(depth int) (opened bool, err error) {
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if len(s.stack) == depth {
			return false, s.bad("nested too deeply")
		}
		closing := c + 2 // in ASCII, both pairs are two apart
		s.pos++
		if s.space(); s.peek() == closing {
			s.pos++
			return false, nil
		}
		s.stack = append(s.stack, closing)
		if c == '{' {
			err = s.skipKey()
		}
		return true, err
	case c == '"':
		return false, s.skipString()
	case c == '-' || c >= '0' && c <= '9':
		return false, s.skipNumber()
	}
	for _, word := range []string{"null", "true", "false"} {
		if bytes.HasPrefix(s.in[s.pos:], []byte(word)) {
			s.pos += len(word)
			return false, nil
		}
	}
	return false, s.bad("no json value")
}

func (s *scanner) skipKey() error {
	if s.peek() != '"' {
		return s.bad("no member name")
	}
	if err := s.skipString(); err != nil {
		return err
	}
	return s.colon()
}

func (s *scanner) skipString() error {
	for s.pos++; s.pos < len(s.in); s.pos++ {
		switch c := s.in[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c < ' ':
			return s.bad("control character in a string")
		case c == '\\':
			s.pos++
			switch s.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					s.pos++
					if c := s.peek() | 0x20; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
						return s.bad("bad \\u escape")
					}
				}
			default:
				return s.bad("unknown escape")
			}
		}
	}
	return s.bad("string without end")
}

func (s *scanner) skipNumber() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.skipDigits() {
		return s.bad("no digit")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.skipDigits() {
			return s.bad("no digit after the point")
		}
	}
	if s.peek()|0x20 == 'e' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.skipDigits() {
			return s.bad("no digit in the exponent")
		}
	}
	return nil
}

func (s *scanner) skipDigits() bool {
	start := s.pos
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}
