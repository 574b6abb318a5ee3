package store

import (
	"encoding/binary"
	"hash/crc32"
)

// A sealed row ends in a checksum of itself and of the key that it stands under: bbolt's
// pages have none. Its first byte says that it is sealed, and differs from that of any
// row without a seal in more than one bit: no bit of a sealed row makes it one that
// nothing proves.

// sealLen is the length of the checksum at the end of a sealed row.
const sealLen = 4

// castagnoli is the polynomial of the checksum, which processors know.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table that is never changed

// seal is the checksum of a row and of the key that it stands under.
func seal(key, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, row)
}

// appendSeal seals the row that is to stand under key.
func appendSeal(key, row []byte) []byte {
	return binary.BigEndian.AppendUint32(row, seal(key, row))
}

// unsealed is the sealed row under key without its seal, if that fits.
func unsealed(key, row []byte) ([]byte, bool) {
	end := len(row) - sealLen
	if end < 0 || binary.BigEndian.Uint32(row[end:]) != seal(key, row[:end]) {
		return nil, false
	}
	return row[:end], true
}

// sealedNumber is the row of a number that is to stand under key.
func sealedNumber(key []byte, n uint64) []byte { return appendSeal(key, u64Key(n)) }

// numberOf is the number whose row stands under key.
func numberOf(key, row []byte) (uint64, bool) {
	row, ok := fixed(key, row, numberLen)
	if !ok {
		return 0, false
	}
	return binary.BigEndian.Uint64(row), true
}

// fixed is the row under key without its seal, where all such rows are of one length
// without it. One that was written before there were seals is shorter by that.
func fixed(key, row []byte, length int) ([]byte, bool) {
	if len(row) == length+sealLen {
		return unsealed(key, row)
	}
	return row, len(row) == length
}

// numberLen is the length of a number without a seal.
const numberLen = 8
