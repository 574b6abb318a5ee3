package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"appview/internal/network/outcome"
)

const (
	// maxInMemory is the largest CAR whose blocks stay in memory. Larger ones stand in
	// a file: what a host sends slowly must not take memory all the while.
	maxInMemory = 256 << 10
	// spoolBuffer is what is written to such a file at once.
	spoolBuffer = freeBytes
	firstBuffer = 16 << 10 // many repos are small
	// freeBytes is what every repo may take without asking for it.
	freeBytes = 64 << 10

	// maxIndex bounds the index of the blocks of one CAR. Only one of a great many
	// tiny blocks gets there before it reaches maxCAR.
	maxIndex = 16 << 20
	// maxOpenNodes bounds the bytes of the nodes that are open at once of one tree.
	maxOpenNodes = 8 << 20
	// MaxMemory is what one CAR may take in memory.
	MaxMemory = maxInMemory + maxIndex + maxOpenNodes

	frameSize  = digestSize + 4 // before the content of every block: its hash and its length
	entrySize  = 8              // of one entry of the index
	offsetBits = 28             // of it, for where a block stands: more than MaxCAR has
	notStored  = ^uint32(0)     // length of a block that was too large to be stored
)

// blocks are those of one CAR, one behind the other in the order in which they came,
// each behind its hash and its length: in memory, or, when they are many, in a file. The
// index finds them: its entries are sorted by hash.
type blocks struct {
	buf   []byte   // all of them; with a file, those that are not in it yet
	file  *os.File // nil: all are in memory
	filed int64    // bytes in it
	count int
	index []uint64 // see indexEntry

	bufferedBytes int64 // of memory
	charged       int64 // the most that bufferedBytes was, past freeBytes

	open  Spool
	grow  func(n int64) error                     // waits until so many more bytes may be held
	spill func(n int64, write func() error) error // the same for bytes of a file, which write then writes
}

// indexEntry is the beginning of a block's hash and the offset at which the block stands.
// Nearly always that much of the hash is enough to tell blocks apart.
func indexEntry(hash []byte, offset int64) uint64 {
	return binary.BigEndian.Uint64(hash)>>offsetBits<<offsetBits | uint64(offset)
}

func offsetOf(entry uint64) int64 { return int64(entry & (1<<offsetBits - 1)) }

// ErrSpool says that the file of a repo could not be written or read: a failure of this
// machine, and of no host.
var ErrSpool = errors.New("file of a large repo")

// beginBlock writes what stands before a block. Its content, if it is stored, comes next.
func (b *blocks) beginBlock(id digest, size uint32) error {
	if b.count++; int64(b.count)*entrySize > maxIndex {
		return outcome.Bad(outcome.ReasonTooLarge, "more than %d blocks", maxIndex/entrySize)
	}
	var frame [frameSize]byte
	copy(frame[:], id[:])
	binary.LittleEndian.PutUint32(frame[digestSize:], size)
	return b.appendBytes(frame[:])
}

// appendBytes appends bytes of a block.
func (b *blocks) appendBytes(p []byte) error {
	if len(b.buf)+len(p) > cap(b.buf) {
		if err := b.ensureRoom(len(p)); err != nil {
			return err
		}
	}
	b.buf = append(b.buf, p...)
	return nil
}

// ensureRoom makes room for n more bytes, which are no more than carBuffer, in memory or by
// writing the buffer to the file.
func (b *blocks) ensureRoom(n int) error {
	if b.file != nil {
		return b.flush()
	}
	need := len(b.buf) + n
	if need > maxInMemory {
		return b.moveToFile()
	}
	size := min(max(2*cap(b.buf), need, firstBuffer), maxInMemory)
	if err := b.charge(int64(size - cap(b.buf))); err != nil {
		return err
	}
	b.buf = append(make([]byte, 0, size), b.buf...)
	return nil
}

// moveToFile writes what is in memory to a new file, where everything goes from here on.
func (b *blocks) moveToFile() (err error) {
	if b.file, err = b.open(); err != nil {
		return fmt.Errorf("%w: make it: %w", ErrSpool, err)
	}
	if err := b.flush(); err != nil {
		return err
	}
	b.bufferedBytes -= int64(cap(b.buf) - spoolBuffer)
	b.buf = make([]byte, 0, spoolBuffer)
	return nil
}

// flush writes the buffer to the file.
func (b *blocks) flush() error {
	return b.spill(int64(len(b.buf)), func() error {
		if _, err := b.file.WriteAt(b.buf, b.filed); err != nil {
			return fmt.Errorf("%w: write it: %w", ErrSpool, err)
		}
		b.filed += int64(len(b.buf))
		b.buf = b.buf[:0]
		return nil
	})
}

// charge is called before memory is taken.
func (b *blocks) charge(n int64) error {
	b.bufferedBytes += n
	if b.bufferedBytes > MaxMemory {
		return outcome.Bad(outcome.ReasonTooLarge, "%d blocks take more than %d bytes of memory", b.count, MaxMemory)
	}
	more := b.bufferedBytes - freeBytes - b.charged
	if more <= 0 {
		return nil
	}
	b.charged += more
	return b.grow(more)
}

// buildIndex makes the index once all blocks are there, at its exact size. A block that
// came twice has one entry.
func (b *blocks) buildIndex() error {
	if b.file != nil {
		if err := b.flush(); err != nil {
			return err
		}
		b.bufferedBytes -= int64(cap(b.buf))
		b.buf = nil
	}
	if err := b.charge(entrySize * int64(b.count)); err != nil {
		return err
	}
	b.index = make([]uint64, 0, b.count)
	if err := b.indexAll(); err != nil {
		return err
	}
	slices.Sort(b.index)
	return b.dropDuplicates()
}

// indexAll adds an entry for every block.
func (b *blocks) indexAll() error {
	window, begin := b.buf, int64(0)
	if b.file != nil {
		window = make([]byte, 0, spoolBuffer)
	}
	for at := int64(0); at < b.size(); {
		if at+frameSize > begin+int64(len(window)) {
			begin = at
			n := min(int64(cap(window)), b.size()-at)
			if err := b.readAt(window[:n], at); err != nil {
				return err
			}
			window = window[:n]
		}
		frame := window[at-begin:]
		b.index = append(b.index, indexEntry(frame, at))
		at += frameSize
		if size := binary.LittleEndian.Uint32(frame[digestSize:]); size != notStored {
			at += int64(size)
		}
	}
	return nil
}

// dropDuplicates leaves one entry of each block. A host could repeat one without end whose
// entry looks like another's, and every search for that would compare all of them.
func (b *blocks) dropDuplicates() error {
	unique := b.index[:0]
	run := 0 // entries at the end of unique that look alike
	for _, p := range b.index {
		if n := len(unique); n == 0 || unique[n-1]>>offsetBits != p>>offsetBits {
			unique, run = append(unique, p), 1
			continue
		}
		id, _, err := b.frame(offsetOf(p))
		if err != nil {
			return err
		}
		known := false
		for _, q := range unique[len(unique)-run:] {
			other, _, err := b.frame(offsetOf(q))
			if err != nil {
				return err
			}
			known = known || other == id
		}
		if !known {
			unique, run = append(unique, p), run+1
		}
	}
	b.index = unique
	return nil
}

// size is how many bytes all blocks have.
func (b *blocks) size() int64 {
	if b.file != nil {
		return b.filed
	}
	return int64(len(b.buf))
}

// readAt reads bytes of the blocks.
func (b *blocks) readAt(p []byte, at int64) error {
	if b.file == nil {
		copy(p, b.buf[at:])
		return nil
	}
	if _, err := b.file.ReadAt(p, at); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: read it: %w", ErrSpool, err)
	} else if err != nil {
		return fmt.Errorf("%w: it was cut", ErrSpool)
	}
	return nil
}

// frame is what stands before a block.
func (b *blocks) frame(at int64) (id digest, size uint32, err error) {
	var frame [frameSize]byte
	if err := b.readAt(frame[:], at); err != nil {
		return id, 0, err
	}
	return digest(frame[:digestSize]), binary.LittleEndian.Uint32(frame[digestSize:]), nil
}

// blockRef is where a block's content stands. size is notStored if it does not.
type blockRef struct {
	at   int64
	size uint32
}

// find looks a block up.
func (b *blocks) find(id digest) (f blockRef, found bool, err error) {
	first := indexEntry(id[:], 0)
	i, _ := slices.BinarySearch(b.index, first)
	for ; i < len(b.index) && b.index[i]>>offsetBits == first>>offsetBits; i++ {
		at := offsetOf(b.index[i])
		other, size, err := b.frame(at)
		if err != nil {
			return blockRef{}, false, err
		}
		if other == id {
			return blockRef{at + frameSize, size}, true, nil
		}
	}
	return blockRef{}, false, nil
}

// read gives the content of a stored block: a slice of the blocks' own memory, or of into,
// which has bufferSize bytes.
func (b *blocks) read(f blockRef, into []byte) ([]byte, error) {
	if b.file == nil {
		end := f.at + int64(f.size)
		return b.buf[f.at:end:end], nil
	}
	into = into[:f.size]
	return into, b.readAt(into, f.at)
}

// bufferSize is how long a buffer must be to read a block.
func (b *blocks) bufferSize(f blockRef) int {
	if b.file == nil {
		return 0
	}
	return int(f.size)
}

// Close ends the file, and frees everything else. It may be called twice.
func (b *blocks) Close() {
	if b.file != nil {
		closeSpool(b.file)
		b.file = nil
	}
	b.buf, b.index = nil, nil
}
