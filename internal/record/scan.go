package record

import (
	"errors"
)

const (
	// maxShallow is how deep JSON may nest that is read as a whole.
	maxShallow = 128
	// maxSkipDepth is how deep a value may nest that is only passed on. It is
	// larger, so that one monstrous record does not hide its whole page: the
	// record alone is refused where it is read.
	maxSkipDepth = 64 << 10
)

// Scanner reads JSON that a host sent, strictly and in one pass, and returns values as
// slices of the input. It never recurses into what it does not know.
type Scanner struct {
	jsonReader
	stack []byte // closing brackets of what skip is inside of
}

// ScanObject reads a body that must be one JSON object and nothing else. member must read
// the value of each member.
func ScanObject(body []byte, member func(s *Scanner, key string) error) error {
	s := &Scanner{jsonReader: jsonReader{in: body}}
	s.space()
	if s.peek() != '{' {
		return errors.New("not a json object")
	}
	if err := s.Object(func(key string) error { return member(s, key) }); err != nil {
		return err
	}
	return s.end()
}

// IsShallow reports whether b is one JSON value that nests no deeper than 128 times:
// whether it may be given to encoding/json.
func IsShallow(b []byte) bool {
	s := &Scanner{jsonReader: jsonReader{in: b}}
	s.space()
	return s.skip(maxShallow) == nil && s.end() == nil
}

// Bad is an error of the JSON at this place.
func (s *Scanner) Bad(what string) error { return s.bad(what) }

func (s *Scanner) end() error {
	if s.space(); s.pos != len(s.in) {
		return s.bad("something after the end")
	}
	return nil
}

// Peek is the first byte of the next value, or 0 at the end.
func (s *Scanner) Peek() byte { return s.peek() }

// Object calls member for each member of an object, which must read the value.
func (s *Scanner) Object(member func(key string) error) error {
	s.pos++
	for more := s.first('}'); more; {
		if s.peek() != '"' {
			return s.bad("no member name")
		}
		key, err := s.string()
		if err != nil {
			return err
		}
		if err := s.colon(); err != nil {
			return err
		}
		if err := member(string(key)); err != nil {
			return err
		}
		if more, err = s.next('}'); err != nil {
			return err
		}
	}
	return nil
}

// Array calls item for each item of an array, which must read it.
func (s *Scanner) Array(item func() error) error {
	s.pos++
	for more := s.first(']'); more; {
		err := item()
		if err != nil {
			return err
		}
		if more, err = s.next(']'); err != nil {
			return err
		}
	}
	return nil
}

// Text reads a string. Anything else is skipped, and is the empty text.
func (s *Scanner) Text() (string, error) {
	if s.peek() != '"' {
		return "", s.Skip()
	}
	text, err := s.string()
	return string(text), err
}

// Value reads any value as it stands.
func (s *Scanner) Value() ([]byte, error) { return s.Raw(s.Skip) }

// Skip skips any value.
func (s *Scanner) Skip() error { return s.skip(maxSkipDepth) }

// Raw is what read reads, as it stands.
func (s *Scanner) Raw(read func() error) ([]byte, error) {
	start := s.pos
	if err := read(); err != nil {
		return nil, err
	}
	return s.in[start:s.pos:s.pos], nil
}

// skip skips one value of any kind, without recursion.
func (s *Scanner) skip(depth int) error {
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

// enter skips a scalar or an empty container, or enters a container. It reports whether a
// value follows.
func (s *Scanner) enter(depth int) (opened bool, err error) {
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if len(s.stack) == depth {
			return false, s.bad("nested too deeply")
		}
		closing := c + 2 // in ASCII, both pairs are two apart
		s.pos++
		if !s.first(closing) {
			return false, nil
		}
		s.stack = append(s.stack, closing)
		if c == '{' {
			err = s.skipKey()
		}
		return true, err
	case c == '"':
		_, _, err := s.skipString()
		return false, err
	case c == '-' || c >= '0' && c <= '9':
		_, _, err := s.numeral()
		return false, err
	case s.literal("null"), s.literal("true"), s.literal("false"):
		return false, nil
	}
	return false, s.bad("no json value")
}

func (s *Scanner) skipKey() error {
	if s.peek() != '"' {
		return s.bad("no member name")
	}
	if _, _, err := s.skipString(); err != nil {
		return err
	}
	return s.colon()
}

func (s *Scanner) colon() error {
	if s.space(); s.peek() != ':' {
		return s.bad("no colon")
	}
	s.pos++
	s.space()
	return nil
}
