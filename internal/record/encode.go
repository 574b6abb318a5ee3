package record

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Members that make an object something other than a map.
const (
	memberLink  = "$link"
	memberBytes = "$bytes"
	memberType  = "$type"
	typeBlob    = "blob"
)

// maxSafeInt is the largest integer that every implementation prints exactly.
const maxSafeInt = 1<<53 - 1

// maxItems is the most members that the network's software takes in one object or array.
const maxItems = 128 << 10

// encoded is a value as DAG-CBOR, and how far to believe that it is what was hashed.
type encoded struct {
	out     []byte
	odd     bool // out is a good guess: equal hashes prove it, different ones prove nothing
	lost    bool // the JSON does not say what was hashed, and out is worth nothing
	outside bool // an integer is not in atproto's data model as it stands; in out it is a float
}

// encoder turns one JSON value into DAG-CBOR in one pass. It reads strictly:
// what it takes is JSON to the letter.
type encoder struct {
	jsonReader
	encoded
	members []member // of all open objects, the innermost last
	scratch []byte
}

// member is one member of an open object: where in out it stands.
type member struct {
	start, key, value, end int // where the whole, the text of its key, and its value begin
}

// encoders are at rest. They hold memory and nothing else: a record takes what the
// one before has left.
var encoders sync.Pool //nolint:gochecknoglobals // no state: only memory

// maxKept is the most memory that an encoder keeps for the next value.
const maxKept = 64 << 10

func newEncoder() *encoder {
	if e, is := encoders.Get().(*encoder); is {
		return e
	}
	return &encoder{}
}

// release gives the encoder to the next value, and with it the memory of what it
// has written.
func (e *encoder) release() {
	e.in = nil
	if cap(e.out)+cap(e.scratch)+cap(e.unquoted) <= maxKept && cap(e.members) <= maxKept {
		encoders.Put(e)
	}
}

// encode reads a record's value. Its errors are ErrInvalid and ErrTooLarge. What it
// returns is good until release.
func (e *encoder) encode(value []byte) (encoded, error) {
	if len(value) > MaxJSON {
		return encoded{}, fmt.Errorf("%d bytes of json: %w", len(value), ErrTooLarge)
	}
	if !utf8.Valid(value) {
		return encoded{}, fmt.Errorf("json is not utf-8: %w", ErrInvalid)
	}
	e.jsonReader = jsonReader{in: value, unquoted: e.unquoted}
	e.encoded = encoded{out: slices.Grow(e.out[:0], len(value))}
	e.members = e.members[:0]
	e.space()
	if e.peek() != '{' {
		return encoded{}, fmt.Errorf("json is not an object: %w", ErrInvalid)
	}
	if err := e.value(1); err != nil {
		return encoded{}, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if e.space(); e.pos != len(e.in) {
		return encoded{}, fmt.Errorf("%w: %w", e.bad("something after the object"), ErrInvalid)
	}
	if e.out[0]&0xe0 != majorMap {
		e.lost = true // {"$link": …} alone is no record
	}
	if len(e.out) > MaxCBOR {
		return encoded{}, fmt.Errorf("%d bytes of cbor: %w", len(e.out), ErrTooLarge)
	}
	return e.encoded, nil
}

func (e *encoder) value(depth int) error {
	switch c := e.peek(); {
	case c == '{':
		return e.object(depth)
	case c == '[':
		return e.array(depth)
	case c == '"':
		s, err := e.string()
		if err != nil {
			return err
		}
		e.text(s)
		return nil
	case c == '-' || c >= '0' && c <= '9':
		return e.number()
	case e.literal("null"):
		e.out = append(e.out, simpleNull)
		return nil
	case e.literal("true"):
		e.out = append(e.out, simpleTrue)
		return nil
	case e.literal("false"):
		e.out = append(e.out, simpleFalse)
		return nil
	default:
		return e.bad("no json value")
	}
}

func (e *encoder) text(s []byte) {
	e.out = append(appendHead(e.out, majorText, uint64(len(s))), s...)
}

func (e *encoder) number() error {
	token, whole, err := e.numeral()
	if err != nil {
		return err
	}
	switch n, ok := integer(token); {
	case !whole || string(token) == "-0": // no integer is a negative zero
		e.odd = true // it may have been rounded, or an integer
	case !ok:
		e.outside = true
	default:
		e.odd = e.odd || n > maxSafeInt || n < -maxSafeInt
		e.out = appendInt(e.out, n)
		return nil
	}
	f, _ := strconv.ParseFloat(string(token), 64) // infinite if it is past all floats
	if math.IsInf(f, 0) {
		e.outside, e.lost = true, true
		e.out = append(e.out, simpleNull)
		return nil
	}
	e.out = appendFloat(e.out, f)
	return nil
}

// integer reads digits that fit 64 bits.
func integer(token []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(token), 10, 64)
	return n, err == nil
}

func (e *encoder) array(depth int) error {
	if depth > MaxDepth {
		return e.bad("nested too deeply")
	}
	e.pos++
	start, n := e.reserve(), 0
	for more := e.first(']'); more; n++ {
		if err := e.value(depth + 1); err != nil {
			return err
		}
		var err error
		if more, err = e.next(']'); err != nil {
			return err
		}
	}
	e.odd = e.odd || n > maxItems
	e.head(start, majorArray, n)
	return nil
}

func (e *encoder) object(depth int) error {
	if depth > MaxDepth {
		return e.bad("nested too deeply")
	}
	e.pos++
	start, base := e.reserve(), len(e.members)
	for more := e.first('}'); more; {
		if e.peek() != '"' {
			return e.bad("no member name")
		}
		name, err := e.string()
		if err != nil {
			return err
		}
		m := member{start: len(e.out)}
		e.text(name)
		m.value = len(e.out)
		m.key = m.value - len(name)
		if e.space(); e.peek() != ':' {
			return e.bad("no colon")
		}
		e.pos++
		e.space()
		if err := e.value(depth + 1); err != nil {
			return err
		}
		m.end = len(e.out)
		e.members = append(e.members, m)
		if more, err = e.next('}'); err != nil {
			return err
		}
	}
	members := e.members[base:]
	if !e.special(start, members) {
		if err := e.sort(members); err != nil {
			return err
		}
		e.head(start, majorMap, len(members))
	}
	e.odd = e.odd || len(members) > maxItems
	e.members = e.members[:base]
	return nil
}

// reserve leaves room for the head of an object or array whose length is not known yet.
func (e *encoder) reserve() int {
	e.out = append(e.out, 0)
	return len(e.out) - 1
}

// head fills in what reserve left, and moves the content if the room was too small.
func (e *encoder) head(at int, major byte, n int) {
	if n < 24 {
		e.out[at] = major | byte(n)
		return
	}
	var buf [maxHead]byte
	h := appendHead(buf[:0], major, uint64(n))
	e.out = slices.Replace(e.out, at, at+1, h...)
}

// key is the name of a member.
func (e *encoder) key(m member) []byte { return e.out[m.key:m.value] }

// sort puts members into canonical order: shorter keys first, then by bytes. A key that
// is there twice says two things, and readers differ in which of them they believe.
func (e *encoder) sort(members []member) error {
	order := func(a, b member) int {
		ka, kb := e.key(a), e.key(b)
		if len(ka) != len(kb) {
			return len(ka) - len(kb)
		}
		return bytes.Compare(ka, kb)
	}
	sorted := true
	for i := 1; i < len(members) && sorted; i++ {
		sorted = order(members[i-1], members[i]) < 0
	}
	if sorted {
		return nil
	}
	start, end := members[0].start, members[len(members)-1].end
	slices.SortStableFunc(members, order)
	e.scratch = e.scratch[:0]
	for i, m := range members {
		if i > 0 && bytes.Equal(e.key(members[i-1]), e.key(m)) {
			return e.bad("an object has a member twice")
		}
		e.scratch = append(e.scratch, e.out[m.start:m.end]...)
	}
	copy(e.out[start:end], e.scratch)
	return nil
}

// special replaces an object that stands for a link or for bytes by what it
// stands for. It also notes the objects that the network's implementations turn
// into CBOR each in its own way.
func (e *encoder) special(start int, members []member) bool {
	for _, m := range members {
		switch string(e.key(m)) {
		case memberLink, memberBytes:
			if len(members) != 1 {
				e.odd = true
				continue
			}
			return e.replace(start, m)
		case memberType:
			e.typed(m, members)
		case "mimeType":
			// Blobs were once {cid, mimeType}.
			e.odd = e.odd || len(members) == 2 && slices.ContainsFunc(members, func(o member) bool { return string(e.key(o)) == "cid" })
		}
	}
	return false
}

// typed notes a $type that is no name of a type, and a blob that is not what blobs are.
func (e *encoder) typed(m member, members []member) {
	name, ok := textOf(e.out[m.value:m.end])
	switch {
	case !ok || len(name) == 0:
		e.odd = true
	case string(name) != typeBlob:
	case len(members) != 4:
		e.odd = true
	default:
		for _, o := range members {
			first := e.out[o.value] & 0xe0
			switch string(e.key(o)) {
			case memberType:
			case "ref":
				e.odd = e.odd || first != majorTag
			case "mimeType":
				e.odd = e.odd || first != majorText
			case "size":
				e.odd = e.odd || first != majorUint
			default:
				e.odd = true
			}
		}
	}
}

// replace writes the link or the bytes that an object with the single member m stands for.
func (e *encoder) replace(start int, m member) bool {
	s, ok := textOf(e.out[m.value:m.end])
	if !ok {
		e.odd = true
		return false
	}
	if string(e.key(m)) == memberLink {
		c, err := parseCID(string(s))
		if err != nil || c.String() != string(s) {
			e.lost = true
			return false
		}
		e.out = appendHead(e.out[:start], majorTag, tagLink)
		e.out = appendHead(e.out, majorBytes, uint64(c.ByteLen()+1))
		e.out = append(append(e.out, 0), c.Bytes()...)
		return true
	}
	data, err := base64.RawStdEncoding.DecodeString(string(s))
	if err != nil || base64.RawStdEncoding.EncodeToString(data) != string(s) {
		e.lost = true // padded, folded or with stray bits: others read it in other ways
		return false
	}
	e.out = append(appendHead(e.out[:start], majorBytes, uint64(len(data))), data...)
	return true
}

// textOf gives the content of a text item that this encoder wrote.
func textOf(item []byte) ([]byte, bool) {
	if item[0]&0xe0 != majorText {
		return nil, false
	}
	skip := 1
	if more := item[0] & 0x1f; more >= 24 {
		skip += 1 << (more - 24)
	}
	return item[skip:], true
}
