package kv

import (
	"encoding/binary"
	"hash/crc32"
)

// Checksums: a sealed row ends in one of itself and of the key that it stands under,
// since bbolt's pages have none. Its first byte says that it is sealed, and differs from
// that of any row without a checksum in more than one bit: no bit of a sealed row makes
// it one that nothing proves.

// SealLen is the length of the checksum at the end of a sealed row.
const SealLen = 4

// castagnoli is the polynomial of the checksum, which processors know.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table that is never changed

// Checksum is the checksum of a row and of the key that it stands under.
func Checksum(key, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, row)
}

// Seal appends the checksum to the row that is to stand under key.
func Seal(key, row []byte) []byte {
	return binary.BigEndian.AppendUint32(row, Checksum(key, row))
}

// Unseal is the sealed row under key without its checksum, if that is right.
func Unseal(key, row []byte) ([]byte, bool) {
	end := len(row) - SealLen
	if end < 0 || binary.BigEndian.Uint32(row[end:]) != Checksum(key, row[:end]) {
		return nil, false
	}
	return row[:end], true
}

// SealedNumber is the row of a number that is to stand under key.
func SealedNumber(key []byte, n uint64) []byte { return Seal(key, NumberKey(n)) }

// NumberOf is the number whose row stands under key. One that was written before there
// were checksums is shorter by that.
func NumberOf(key, row []byte) (uint64, bool) {
	if len(row) == NumberLen+SealLen {
		var ok bool
		if row, ok = Unseal(key, row); !ok {
			return 0, false
		}
	}
	if len(row) != NumberLen {
		return 0, false
	}
	return binary.BigEndian.Uint64(row), true
}

// NumberLen is the length of a number without a checksum, and of a NumberKey.
const NumberLen = 8

// NumberKey is a number as a key: keys stand in the order of their numbers.
func NumberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
