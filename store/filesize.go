package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Layout of bbolt's two meta pages.
const (
	boltMagic      = 0xED0CDAED
	boltHeaderLen  = 16
	boltMetaLen    = 64 // from magic to checksum
	boltMetaSumOff = 56
	boltMaxPage    = 64 << 10
)

// checkSize refuses a file that is shorter than its newest meta page says.
// bbolt maps such a file and dies of a bus error that nothing can catch.
func checkSize(path string, readOnly bool) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && !readOnly {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 && !readOnly {
		return nil // bbolt makes a new one
	}
	head := make([]byte, boltMaxPage+boltHeaderLen+boltMetaLen)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	var newest, pages, size uint64
	for off := 0; off+boltHeaderLen+boltMetaLen <= len(head); off += 1 << 9 {
		meta := head[off+boltHeaderLen:][:boltMetaLen]
		if binary.NativeEndian.Uint32(meta) != boltMagic {
			continue
		}
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:boltMetaSumOff]) // a hash never fails
		if sum.Sum64() != binary.NativeEndian.Uint64(meta[boltMetaSumOff:]) {
			continue
		}
		if txid := binary.NativeEndian.Uint64(meta[48:]); pages == 0 || txid > newest {
			newest, pages = txid, binary.NativeEndian.Uint64(meta[40:])
			size = uint64(binary.NativeEndian.Uint32(meta[8:]))
		}
	}
	switch {
	case pages == 0:
		return fmt.Errorf("%w: no valid meta page: it is no database, or its beginning is lost: restore a backup", ErrDamaged)
	case uint64(info.Size()) < pages*size:
		return fmt.Errorf("%w: %d bytes, but %d are in use: it was cut short: restore a backup", ErrDamaged, info.Size(), pages*size)
	}
	return nil
}
