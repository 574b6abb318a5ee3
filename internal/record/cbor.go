package record

import (
	"encoding/binary"
	"math"
)

// Major types of CBOR, in the top three bits of an item's first byte.
const (
	majorUint   = 0 << 5
	majorNegint = 1 << 5
	majorBytes  = 2 << 5
	majorText   = 3 << 5
	majorArray  = 4 << 5
	majorMap    = 5 << 5
	majorTag    = 6 << 5
	majorSimple = 7 << 5
)

// The simple values of DAG-CBOR, as whole first bytes, and the floats that are longer there.
const (
	simpleFalse = majorSimple | 20
	simpleTrue  = majorSimple | 21
	simpleNull  = majorSimple | 22
	float16Head = majorSimple | 25
	float32Head = majorSimple | 26
	float64Head = majorSimple | 27
)

// tagLink marks a CID, the only tag there is in DAG-CBOR. Its byte string begins
// with a zero, the multibase prefix for plain binary.
const tagLink = 42

// maxHead is the longest head of an item.
const maxHead = 9

// appendHead writes the first bytes of an item, in the shortest form there is.
func appendHead(out []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(out, major|27), n)
	}
}

func appendInt(out []byte, n int64) []byte {
	if n < 0 {
		return appendHead(out, majorNegint, uint64(-1-n))
	}
	return appendHead(out, majorUint, uint64(n))
}

func appendFloat(out []byte, f float64) []byte {
	return binary.BigEndian.AppendUint64(append(out, float64Head), math.Float64bits(f))
}

// float16 is the number that sixteen bits stand for.
func float16(bits uint64) float64 {
	fraction, exponent := float64(bits&0x3ff), int(bits>>10&0x1f)
	var f float64
	switch exponent {
	case 0:
		f = math.Ldexp(fraction, -24)
	case 0x1f:
		return math.NaN() // or an infinity, which is as little use
	default:
		f = math.Ldexp(fraction+1024, exponent-25)
	}
	if bits&0x8000 != 0 {
		return -f
	}
	return f
}
