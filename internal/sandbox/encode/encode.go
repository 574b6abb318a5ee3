// Package encode writes what the hosts of the sandbox send: records as DAG-CBOR and as JSON,
// and CARs. It imports nothing that the sandbox is used to test, so that it can contradict it.
package encode

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

const (
	// maxDepth bounds the nesting of a record value.
	maxDepth = 64
	// SHA256 is the multihash code of SHA-256, the only hash of repo blocks.
	SHA256 = 0x12
)

// CID names a DAG-CBOR block.
func CID(block []byte) (cid.Cid, error) {
	return cid.V1Builder{Codec: cid.DagCBOR, MhType: SHA256}.Sum(block)
}

// Value gives the two forms of a record: the DAG-CBOR that is hashed and
// stored in the repo, and the JSON that hosts serve.
func Value(value map[string]any) (block, body []byte, err error) {
	body, err = appendJSON(nil, value, maxDepth)
	if err != nil {
		return nil, nil, fmt.Errorf("encode value as JSON: %w", err)
	}
	block, err = atdata.MarshalCBOR(value)
	if err != nil {
		return nil, nil, fmt.Errorf("encode value as DAG-CBOR: %w", err)
	}
	return block, body, nil
}

// appendJSON writes a value as the reference PDS does: members in DAG-CBOR order
// (shorter names first), strings with as few escapes as JSON allows.
func appendJSON(b []byte, value any, depth int) ([]byte, error) {
	if depth == 0 {
		return nil, fmt.Errorf("value is nested deeper than %d", maxDepth)
	}
	switch v := value.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return String(b, v), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("number %g has no JSON form", v)
		}
		return appendFloat(b, v), nil
	case atdata.CIDLink:
		return append(append(append(b, `{"$link":"`...), v.String()...), `"}`...), nil
	case atdata.Bytes:
		b = append(b, `{"$bytes":"`...)
		b = base64.RawStdEncoding.AppendEncode(b, v)
		return append(b, `"}`...), nil
	case atdata.Blob:
		b = append(append(append(b, `{"$type":"blob","ref":{"$link":"`...), v.Ref.String()...), `"},"mimeType":`...)
		b = append(String(b, v.MimeType), `,"size":`...)
		return append(strconv.AppendInt(b, v.Size, 10), '}'), nil
	case []any:
		return appendArray(b, v, depth)
	case map[string]any:
		return appendObject(b, v, depth)
	}
	return nil, fmt.Errorf("value has a member of type %T", value)
}

// appendFloat writes a number as JavaScript does, which has no other ones: 1.0 as 1, a
// negative zero as 0, and 1e19 as an integer.
func appendFloat(b []byte, f float64) []byte {
	size := math.Abs(f)
	switch {
	case size == 0:
		return append(b, '0')
	case size >= 1e-6 && size < 1e21:
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); b[n-2] == '0' && (b[n-3] == '-' || b[n-3] == '+') { // an exponent of one digit
		b = append(b[:n-2], b[n-1])
	}
	return b
}

func appendArray(b []byte, items []any, depth int) ([]byte, error) {
	var err error
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendJSON(b, item, depth-1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendObject(b []byte, members map[string]any, depth int) ([]byte, error) {
	names := slices.SortedFunc(maps.Keys(members), func(x, y string) int {
		return cmp.Or(len(x)-len(y), strings.Compare(x, y))
	})
	var err error
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(String(b, name), ':')
		if b, err = appendJSON(b, members[name], depth-1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// String quotes s as JSON.stringify does: encoding/json would also escape
// <, > and &, which hosts send as they are.
func String(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
				continue
			}
			b = append(b, c)
		}
	}
	return append(b, '"')
}
