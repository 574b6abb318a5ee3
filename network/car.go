package network

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxCAR is the largest repo that is read as one CAR, in bytes after
	// decompression. Larger ones are ReasonTooLarge: listRecords can still read them.
	maxCAR = 128 << 20
	// maxBlock is the largest block whose content is kept: records are no larger,
	// and nodes are far smaller. Of a larger one only the hash is known.
	maxBlock = 1 << 20
	// maxStrange is how many blocks a CAR may have that no repo is made of. They are
	// passed over, but each takes a moment, and millions of them fit into a CAR.
	maxStrange = 1024
	// maxCARHeader is as much as a header with a few roots may take.
	maxCARHeader = 8 << 10

	carBuffer  = 32 << 10
	digestSize = sha256.Size
	linkPrefix = "\x01\x71\x12\x20" // CIDv1, DAG-CBOR, SHA-256, 32 bytes: the only kind that a repo is made of
)

// badCAR is a body that came well and is no good.
type badCAR struct {
	reason Reason
	err    error
}

// Error says what is wrong with it.
func (e *badCAR) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *badCAR) Unwrap() error { return e.err }

func spoiled(reason Reason, format string, args ...any) error {
	return &badCAR{reason, fmt.Errorf(format, args...)}
}

// digest names a block: the hash inside of its CID.
type digest [digestSize]byte

// linked is the block that a CID names, if it is of the only kind that is kept.
func linked(id []byte) (d digest, ok bool) {
	if len(id) != len(linkPrefix)+digestSize || string(id[:len(linkPrefix)]) != linkPrefix {
		return d, false
	}
	return digest(id[len(linkPrefix):]), true
}

// car is a CAR with its blocks, each with a hash that was checked, once.
type car struct {
	root     digest
	received int64 // bytes, decompressed
	strange  int   // blocks that were passed over
	blocks
}

// source is a body as it comes: bounded, watched, and with a memory of what ended it.
type source struct {
	body  io.Reader
	limit int64
	total int64
	w     *watchdog
	err   error // of the body, never of what is in it
}

// Read reads on.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.total += int64(n)
	if s.total > s.limit {
		err = errTooLarge
	}
	if err == nil {
		err = s.w.progress(s.total)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// readCAR reads a body into into, and tells how it began.
func readCAR(ctx context.Context, into *car, body io.Reader, limit int64, g *grant, w *watchdog, open Spool) (beginning []byte, err error) {
	src := &source{body: body, limit: limit, w: w}
	aside := func(f func() error) error {
		err := w.aside(f)
		if g.wanted() {
			w.hurry(src.total)
		}
		return err
	}
	*into = car{blocks: blocks{
		open: open,
		grow: func(n int64) error { return aside(func() error { return g.grow(ctx, n) }) },
		spill: func(n int64, write func() error) error {
			return aside(func() error {
				if err := g.spool(ctx, n); err != nil {
					return err
				}
				return write()
			})
		},
	}}
	in := bufio.NewReaderSize(src, carBuffer)
	beginning, _ = in.Peek(sniffed) // a body may be shorter
	beginning = bytes.Clone(beginning)
	err = into.receive(in)
	if into.received = src.total; err == nil {
		return beginning, nil
	}
	into.close()
	if src.err != nil {
		return beginning, src.err
	}
	return beginning, err
}

// sniffed is how much of a body is looked at to tell a web page, or an error in words,
// from a CAR.
const sniffed = 1 << 10

// receive reads header and blocks. Its errors are *badCAR, or those of the body
// and of the budget.
func (c *car) receive(in *bufio.Reader) error {
	if err := c.header(in); err != nil {
		return err
	}
	for {
		size, err := binary.ReadUvarint(in)
		switch {
		case errors.Is(err, io.EOF):
			return c.index()
		case errors.Is(err, io.ErrUnexpectedEOF):
			return spoiled(ReasonCutBody, "cut in the length of block %d", c.count)
		case err != nil:
			return spoiled(ReasonBadAnswer, "length of block %d: %w", c.count, err)
		case size == 0 || size > maxCAR:
			return spoiled(ReasonBadAnswer, "block %d of %d bytes", c.count, size)
		}
		if err := c.block(in, int(size)); err != nil {
			return err
		}
	}
}

// header reads {"roots":[…],"version":1}. The first root is the commit; what
// more there may be has no meaning.
func (c *car) header(in *bufio.Reader) error {
	size, err := binary.ReadUvarint(in)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return spoiled(ReasonCutBody, "no header")
	}
	if err != nil || size == 0 || size > maxCARHeader {
		return spoiled(ReasonBadAnswer, "no car")
	}
	if first, err := in.Peek(1); err == nil && first[0] != majorMap<<5|2 {
		return spoiled(ReasonBadAnswer, "no car")
	}
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
		return spoiled(ReasonBadAnswer, "car header: %w", d.err)
	}
	var ok bool
	switch c.root, ok = linked(root); {
	case version != 1:
		return spoiled(ReasonBadAnswer, "car of version %d", version)
	case root == nil:
		return spoiled(ReasonBadAnswer, "car without a root")
	case !ok:
		return spoiled(ReasonBadAnswer, "root is no commit")
	}
	return nil
}

// block reads one block of size bytes, its CID included, and checks its hash. A
// block under a CID of another kind can be named by no node and is passed over.
func (c *car) block(in *bufio.Reader, size int) error {
	var name [len(linkPrefix) + digestSize]byte
	if size < len(name) {
		return c.skip(in, size)
	}
	if err := c.fill(in, name[:]); err != nil {
		return err
	}
	size -= len(name)
	id, ok := linked(name[:])
	if !ok {
		return c.skip(in, size)
	}
	stored := uint32(size)
	if size > maxBlock {
		stored = unkept
	}
	if err := c.add(id, stored); err != nil {
		return err
	}
	hash := sha256.New()
	for size > 0 {
		part, err := in.Peek(min(size, carBuffer))
		if len(part) == 0 {
			return c.ended(err)
		}
		_, _ = hash.Write(part) // it never fails
		if stored != unkept {
			if err := c.write(part); err != nil {
				return err
			}
		}
		size -= len(part)
		_, _ = in.Discard(len(part)) // they are there
	}
	if digest(hash.Sum(nil)) != id {
		return spoiled(ReasonBadAnswer, "block %x has another hash", id)
	}
	return nil
}

// skip passes over a block that no repo is made of.
func (c *car) skip(in *bufio.Reader, n int) error {
	if c.strange++; c.strange > maxStrange {
		return spoiled(ReasonBadAnswer, "more than %d blocks of no kind that a repo has", maxStrange)
	}
	_, err := in.Discard(n)
	return c.ended(err)
}

// fill reads all of b, or tells that the CAR was cut.
func (c *car) fill(in io.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	return c.ended(err)
}

// ended is what it means that a block could not be read to its end.
func (c *car) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return spoiled(ReasonCutBody, "cut in block %d", c.count)
	}
	return err
}
