package repo

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"

	"appview/internal/network/outcome"
)

const (
	// MaxCAR is the largest repo that is read as one CAR, in bytes after
	// decompression. Of a larger one listRecords can still read the records.
	MaxCAR = 128 << 20
	// maxBlock is the largest block that is stored: records are no larger, and nodes
	// are far smaller. Of a larger one only the hash is checked.
	maxBlock = 1 << 20
	// maxUnusableBlocks is how many blocks a CAR may have that no repo is made of. They are
	// skipped, but each takes a moment, and millions of them fit into a CAR.
	maxUnusableBlocks = 1024
	// maxCARHeader is as much as a header with a few roots may take.
	maxCARHeader = 8 << 10

	carBuffer  = 32 << 10
	digestSize = sha256.Size
	linkPrefix = "\x01\x71\x12\x20" // CIDv1, DAG-CBOR, SHA-256, 32 bytes: the only kind that a repo is made of
)

// digest names a block: the hash inside of its CID.
type digest [digestSize]byte

// digestOf is the hash in a CID, if that is of the only kind that a repo's blocks have.
func digestOf(id []byte) (d digest, ok bool) {
	if len(id) != len(linkPrefix)+digestSize || string(id[:len(linkPrefix)]) != linkPrefix {
		return d, false
	}
	return digest(id[len(linkPrefix):]), true
}

// CAR is a file of blocks, each found by its hash, which was checked once. It takes memory
// or a file until Close.
type CAR struct {
	root     digest
	received int64 // bytes, decompressed
	unusable int   // blocks that were skipped, since no repo is made of such
	blocks
}

// NewCAR is a CAR to be read. open makes the file that its blocks go to when they are too
// large for memory; nil: one in the system's directory for such.
func NewCAR(open Spool) *CAR {
	if open == nil {
		open = spoolInTemp
	}
	return &CAR{blocks: blocks{open: open}}
}

// Memory bounds what a CAR may take.
type Memory struct {
	Grow  func(n int64) error                     // waits until n more bytes may be held
	Spill func(n int64, write func() error) error // waits until n more bytes may be held in a file, and calls write
}

// Receive reads a CAR to its end and checks the hash of every block. Its errors are
// *outcome.BadContent, ErrSpool, and those of in and of memory; after any of them the CAR
// is closed.
func (c *CAR) Receive(in io.Reader, memory Memory) error {
	c.grow, c.spill = memory.Grow, memory.Spill
	err := c.receive(bufio.NewReaderSize(in, carBuffer))
	if err != nil {
		c.Close()
	}
	return err
}

// receive reads header and blocks.
func (c *CAR) receive(in *bufio.Reader) error {
	if err := c.header(in); err != nil {
		return err
	}
	for {
		size, err := binary.ReadUvarint(in)
		switch {
		case errors.Is(err, io.EOF):
			return c.buildIndex()
		case errors.Is(err, io.ErrUnexpectedEOF):
			return outcome.Bad(outcome.ReasonCutBody, "cut in the length of block %d", c.count)
		case err != nil:
			return outcome.Bad(outcome.ReasonBadAnswer, "length of block %d: %w", c.count, err)
		case size == 0 || size > MaxCAR:
			return outcome.Bad(outcome.ReasonBadAnswer, "block %d of %d bytes", c.count, size)
		}
		c.countReceived(size)
		if err := c.block(in, int(size)); err != nil {
			return err
		}
	}
}

// countReceived counts the bytes of a section of the CAR, with the varint in front.
func (c *CAR) countReceived(size uint64) {
	c.received += int64(size) + int64(bits.Len64(size)+6)/7
}

// header reads {"roots":[…],"version":1}. The first root is the commit; what
// more there may be has no meaning.
func (c *CAR) header(in *bufio.Reader) error {
	size, err := binary.ReadUvarint(in)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return outcome.Bad(outcome.ReasonCutBody, "no header")
	}
	if err != nil || size == 0 || size > maxCARHeader {
		return outcome.Bad(outcome.ReasonBadAnswer, "no car")
	}
	if first, err := in.Peek(1); err == nil && first[0] != majorMap<<5|2 {
		return outcome.Bad(outcome.ReasonBadAnswer, "no car")
	}
	c.countReceived(size)
	head := make([]byte, size)
	if err := c.fill(in, head); err != nil {
		return err
	}
	d := decoder{in: head}
	var root []byte
	version := uint64(0)
	for n := d.open(majorMap); n > 0 && d.err == nil; n-- {
		switch name := d.take(majorText); string(name) {
		case "version":
			version = d.number()
		case "roots":
			roots := d.open(majorArray)
			for i := range roots {
				if id := d.link(); i == 0 {
					root = id
				}
				if d.err != nil {
					break
				}
			}
		default:
			d.fail("header member %.20q", name)
		}
	}
	d.end()
	if d.err != nil {
		return outcome.Bad(outcome.ReasonBadAnswer, "car header: %w", d.err)
	}
	var ok bool
	switch c.root, ok = digestOf(root); {
	case version != 1:
		return outcome.Bad(outcome.ReasonBadAnswer, "car of version %d", version)
	case root == nil:
		return outcome.Bad(outcome.ReasonBadAnswer, "car without a root")
	case !ok:
		return outcome.Bad(outcome.ReasonBadAnswer, "root is no commit")
	}
	return nil
}

// block reads one block of size bytes, its CID included, and checks its hash. A
// block under a CID of another kind can be named by no node and is skipped.
func (c *CAR) block(in *bufio.Reader, size int) error {
	var name [len(linkPrefix) + digestSize]byte
	if size < len(name) {
		return c.skip(in, size)
	}
	if err := c.fill(in, name[:]); err != nil {
		return err
	}
	size -= len(name)
	id, ok := digestOf(name[:])
	if !ok {
		return c.skip(in, size)
	}
	stored := uint32(size)
	if size > maxBlock {
		stored = notStored
	}
	if err := c.beginBlock(id, stored); err != nil {
		return err
	}
	hash := sha256.New()
	for size > 0 {
		part, err := in.Peek(min(size, carBuffer))
		if len(part) == 0 {
			return c.cut(err)
		}
		_, _ = hash.Write(part) // it never fails
		if stored != notStored {
			if err := c.appendBytes(part); err != nil {
				return err
			}
		}
		size -= len(part)
		_, _ = in.Discard(len(part)) // they are there
	}
	if digest(hash.Sum(nil)) != id {
		return outcome.Bad(outcome.ReasonBadAnswer, "block %x has another hash", id)
	}
	return nil
}

// skip skips a block that no repo is made of.
func (c *CAR) skip(in *bufio.Reader, n int) error {
	if c.unusable++; c.unusable > maxUnusableBlocks {
		return outcome.Bad(outcome.ReasonBadAnswer, "more than %d blocks of no kind that a repo has", maxUnusableBlocks)
	}
	_, err := in.Discard(n)
	return c.cut(err)
}

// fill reads all of b.
func (c *CAR) fill(in io.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	return c.cut(err)
}

// cut turns the end of the input into the error of a CAR that was cut off.
func (c *CAR) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return outcome.Bad(outcome.ReasonCutBody, "cut in block %d", c.count)
	}
	return err
}
