package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// maxInMemory is the largest CAR whose blocks stay in memory. Larger ones stand in
	// a file: what a host sends slowly must not take memory all the while.
	maxInMemory = 256 << 10
	// spoolBuffer is what is written to such a file at once.
	spoolBuffer = freeBody
	firstBuffer = 16 << 10 // many repos are small

	// maxIndex bounds the index of the blocks of one CAR. Only one of a great many
	// tiny blocks gets there before it reaches maxCAR.
	maxIndex = 16 << 20
	// maxTreeHeld bounds the nodes that are open at once of one tree.
	maxTreeHeld = 8 << 20
	// maxCARHeld is what one CAR may take in memory.
	maxCARHeld = maxInMemory + maxIndex + maxTreeHeld

	frameSize = digestSize + 4 // before the content of every block: its hash and its length
	placeSize = 8              // of one place
	placeBits = 28             // of it, for where a block stands: more than maxCAR has
	unkept    = ^uint32(0)     // length of a block that was too large to be kept
)

// blocks are those of one CAR, one behind the other in the order in which they came,
// each behind its hash and its length: in memory, or, when they are many, in a file.
// The index finds them.
type blocks struct {
	buf    []byte   // all of them; with a file, those that are not in it yet
	file   *os.File // nil: all are in memory
	filed  int64    // bytes in it
	count  int
	places []uint64 // see place

	held    int64 // bytes of memory
	charged int64 // the most that held was, past what is free

	open  Spool
	grow  func(n int64) error                     // waits until so many more bytes may be held
	spill func(n int64, write func() error) error // the same for bytes of a file, which write then writes
}

// place is where the block with a hash stands. Places are sorted, and nearly always
// the part of the hash in them is enough to tell blocks apart.
func place(hash []byte, at int64) uint64 {
	return binary.BigEndian.Uint64(hash)>>placeBits<<placeBits | uint64(at)
}

func placedAt(p uint64) int64 { return int64(p & (1<<placeBits - 1)) }

// errSpool says that the file of a repo could not be written or read. That is the
// failure of nobody but ourselves.
var errSpool = errors.New("file of a large repo")

// add begins a block. Its content, if it is kept, is written next.
func (b *blocks) add(id digest, size uint32) error {
	if b.count++; int64(b.count)*placeSize > maxIndex {
		return spoiled(ReasonTooLarge, "more than %d blocks", maxIndex/placeSize)
	}
	var frame [frameSize]byte
	copy(frame[:], id[:])
	binary.LittleEndian.PutUint32(frame[digestSize:], size)
	return b.write(frame[:])
}

// write appends bytes of a block.
func (b *blocks) write(p []byte) error {
	if len(b.buf)+len(p) > cap(b.buf) {
		if err := b.makeRoom(len(p)); err != nil {
			return err
		}
	}
	b.buf = append(b.buf, p...)
	return nil
}

// makeRoom makes room for n bytes more, which are no more than the buffer of a body,
// in memory or by writing to the file what is in the way.
func (b *blocks) makeRoom(n int) error {
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
		return fmt.Errorf("%w: make it: %w", errSpool, err)
	}
	if err := b.flush(); err != nil {
		return err
	}
	b.held -= int64(cap(b.buf) - spoolBuffer)
	b.buf = make([]byte, 0, spoolBuffer)
	return nil
}

// flush writes the buffer to the file.
func (b *blocks) flush() error {
	return b.spill(int64(len(b.buf)), func() error {
		if _, err := b.file.WriteAt(b.buf, b.filed); err != nil {
			return fmt.Errorf("%w: write it: %w", errSpool, err)
		}
		b.filed += int64(len(b.buf))
		b.buf = b.buf[:0]
		return nil
	})
}

// charge is called before memory is taken.
func (b *blocks) charge(n int64) error {
	b.held += n
	if b.held > maxCARHeld {
		return spoiled(ReasonTooLarge, "%d blocks take more than %d bytes of memory", b.count, maxCARHeld)
	}
	more := b.held - freeBody - b.charged
	if more <= 0 {
		return nil
	}
	b.charged += more
	return b.grow(more)
}

// index makes the places once all blocks are there, at their exact number. A block
// that came twice counts once.
func (b *blocks) index() error {
	if b.file != nil {
		if err := b.flush(); err != nil {
			return err
		}
		b.held -= int64(cap(b.buf))
		b.buf = nil
	}
	if err := b.charge(placeSize * int64(b.count)); err != nil {
		return err
	}
	b.places = make([]uint64, 0, b.count)
	if err := b.scan(); err != nil {
		return err
	}
	slices.Sort(b.places)
	return b.dropRepeated()
}

// scan notes the place of every block.
func (b *blocks) scan() error {
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
		b.places = append(b.places, place(frame, at))
		at += frameSize
		if size := binary.LittleEndian.Uint32(frame[digestSize:]); size != unkept {
			at += int64(size)
		}
	}
	return nil
}

// dropRepeated leaves one place of each block. A host could repeat one without end
// whose place looks like another's, and every search for that would pass all of them.
func (b *blocks) dropRepeated() error {
	kept := b.places[:0]
	run := 0 // places at the end of kept that look alike
	for _, p := range b.places {
		if n := len(kept); n == 0 || kept[n-1]>>placeBits != p>>placeBits {
			kept, run = append(kept, p), 1
			continue
		}
		id, _, err := b.frame(placedAt(p))
		if err != nil {
			return err
		}
		known := false
		for _, q := range kept[len(kept)-run:] {
			other, _, err := b.frame(placedAt(q))
			if err != nil {
				return err
			}
			known = known || other == id
		}
		if !known {
			kept, run = append(kept, p), run+1
		}
	}
	b.places = kept
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
		return fmt.Errorf("%w: read it: %w", errSpool, err)
	} else if err != nil {
		return fmt.Errorf("%w: it was cut", errSpool)
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

// found is a block that is there. size is unkept if its content is not.
type found struct {
	at   int64 // of its content
	size uint32
}

// find looks a block up.
func (b *blocks) find(id digest) (f found, there bool, err error) {
	first := place(id[:], 0)
	i, _ := slices.BinarySearch(b.places, first)
	for ; i < len(b.places) && b.places[i]>>placeBits == first>>placeBits; i++ {
		at := placedAt(b.places[i])
		other, size, err := b.frame(at)
		if err != nil {
			return found{}, false, err
		}
		if other == id {
			return found{at + frameSize, size}, true, nil
		}
	}
	return found{}, false, nil
}

// read is the content of a block that is kept: the blocks' own memory, or that of
// into, which is large enough.
func (b *blocks) read(f found, into []byte) ([]byte, error) {
	if b.file == nil {
		end := f.at + int64(f.size)
		return b.buf[f.at:end:end], nil
	}
	into = into[:f.size]
	return into, b.readAt(into, f.at)
}

// roomFor is how long a buffer must be to read a block.
func (b *blocks) roomFor(f found) int {
	if b.file == nil {
		return 0
	}
	return int(f.size)
}

// close ends the file, and everything that is in it.
func (b *blocks) close() {
	if b.file != nil {
		closeSpool(b.file)
		b.file = nil
	}
	b.buf, b.places = nil, nil
}
