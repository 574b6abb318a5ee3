package network

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// maxCAR is the largest repo that is read as one CAR, in bytes after
	// decompression. Larger ones are ReasonTooLarge: listRecords can still read them.
	maxCAR = 128 << 20
	// maxCARHeld bounds what a CAR may take in memory: its blocks, what of a
	// chunk stays empty behind them, and the index. Only a CAR of a great many
	// tiny blocks gets there before it reaches maxCAR.
	maxCARHeld = 160 << 20
	// maxBlock is the largest block whose content is kept: records are no larger,
	// and nodes are far smaller. Of a larger one only the hash is known.
	maxBlock = 1 << 20
	// maxStrange is how many blocks a CAR may have that no repo is made of. They are
	// passed over, but each takes a moment, and millions of them fit into a CAR.
	maxStrange = 1024
	// maxCARHeader is as much as a header with a few roots may take.
	maxCARHeader = 8 << 10

	carBuffer  = 32 << 10
	firstChunk = 16 << 10 // most repos are small
	lastChunk  = 1 << 20
	loneBlock  = 64 << 10 // from here on, a block gets a chunk of its own size

	digestSize = sha256.Size
	frameSize  = digestSize + 4     // before the content of every block: its hash and its length
	placeSize  = 16                 // of one place
	unkept     = ^uint32(0)         // length of a block that was too large to be kept
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

// car holds the blocks of one CAR, each with a hash that was checked, once. The
// blocks stand one behind the other in chunks, in the order in which they came,
// each behind its hash and its length; places finds them.
type car struct {
	root    digest
	chunks  [][]byte
	open    int // the chunk that takes the next block; -1: none
	blocks  int
	strange int // blocks that were passed over
	places  []place
	held    int64 // bytes of chunks and places

	// grow waits until so many more bytes may be held.
	grow func(n int64) error
}

// place is where a block stands. Places are sorted by hash, and nearly always
// its beginning is enough to tell them apart.
type place struct {
	begin uint64 // of the hash
	chunk uint32
	at    uint32
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
func readCAR(ctx context.Context, into *car, body io.Reader, limit int64, g *grant, w *watchdog) (beginning []byte, err error) {
	src := &source{body: body, limit: limit, w: w}
	*into = car{open: -1, grow: func(n int64) error {
		err := w.aside(func() error { return g.grow(ctx, n) })
		if g.wanted() {
			w.hurry(src.total)
		}
		return err
	}}
	in := bufio.NewReaderSize(src, carBuffer)
	beginning, _ = in.Peek(sniffed) // a body may be shorter
	beginning = bytes.Clone(beginning)
	err = into.read(in)
	if src.err != nil {
		return beginning, src.err
	}
	return beginning, err
}

// sniffed is how much of a body is looked at to tell a web page, or an error in words,
// from a CAR.
const sniffed = 1 << 10

// read reads header and blocks. Its errors are *badCAR, or those of the body
// and of the budget.
func (c *car) read(in *bufio.Reader) error {
	if err := c.header(in); err != nil {
		return err
	}
	for {
		size, err := binary.ReadUvarint(in)
		switch {
		case errors.Is(err, io.EOF):
			return c.index()
		case errors.Is(err, io.ErrUnexpectedEOF):
			return spoiled(ReasonCutBody, "cut in the length of block %d", c.blocks)
		case err != nil:
			return spoiled(ReasonBadAnswer, "length of block %d: %w", c.blocks, err)
		case size == 0 || size > maxCAR:
			return spoiled(ReasonBadAnswer, "block %d of %d bytes", c.blocks, size)
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

// fill reads all of b, or tells that the CAR was cut.
func (c *car) fill(in io.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return spoiled(ReasonCutBody, "cut in block %d", c.blocks)
	}
	return err
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
	if size > maxBlock {
		sum := sha256.New()
		if err := c.pass(in, sum, size); err != nil {
			return err
		}
		if digest(sum.Sum(nil)) != id {
			return spoiled(ReasonBadAnswer, "block %x has another hash", id)
		}
		return c.keep(id, unkept, nil)
	}
	return c.keep(id, uint32(size), func(b []byte) error {
		if err := c.fill(in, b); err != nil {
			return err
		}
		if sha256.Sum256(b) != id {
			return spoiled(ReasonBadAnswer, "block %x has another hash", id)
		}
		return nil
	})
}

// skip passes over a block that no repo is made of.
func (c *car) skip(in io.Reader, n int) error {
	if c.strange++; c.strange > maxStrange {
		return spoiled(ReasonBadAnswer, "more than %d blocks of no kind that a repo has", maxStrange)
	}
	return c.pass(in, io.Discard, n)
}

// pass reads n bytes away.
func (c *car) pass(in io.Reader, to io.Writer, n int) error {
	_, err := io.CopyN(to, in, int64(n))
	if errors.Is(err, io.EOF) {
		return spoiled(ReasonCutBody, "cut in block %d", c.blocks)
	}
	return err
}

// keep makes room for a block and lets fill write its content.
func (c *car) keep(id digest, size uint32, fill func([]byte) error) error {
	length := frameSize
	if size != unkept {
		length += int(size)
	}
	at, err := c.room(length)
	if err != nil {
		return err
	}
	b := c.chunks[at]
	frame := len(b)
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint32(b, size)
	if size != unkept {
		start := len(b)
		b = b[:start+int(size)]
		if err := fill(b[start:]); err != nil {
			return err
		}
	}
	c.chunks[at] = b[:frame+length]
	c.blocks++
	return nil
}

// room is a chunk that has n bytes left.
func (c *car) room(n int) (int, error) {
	if c.open >= 0 && cap(c.chunks[c.open])-len(c.chunks[c.open]) >= n {
		return c.open, nil
	}
	size := n
	if n < loneBlock {
		size = max(n, int(min(max(c.held, firstChunk), lastChunk)))
	}
	if err := c.charge(int64(size)); err != nil {
		return 0, err
	}
	c.chunks = append(c.chunks, make([]byte, 0, size))
	at := len(c.chunks) - 1
	if n < loneBlock {
		c.open = at
	}
	return at, nil
}

// charge is called before memory is taken.
func (c *car) charge(n int64) error {
	before := max(c.held, freeBody)
	c.held += n
	if c.held > maxCARHeld {
		return spoiled(ReasonTooLarge, "%d blocks take more than %d bytes", c.blocks, maxCARHeld)
	}
	if more := c.held - before; more > 0 {
		return c.grow(more)
	}
	return nil
}

// index makes the places once all blocks are there, at their exact number: no
// list has to grow beside the blocks.
func (c *car) index() error {
	if err := c.charge(placeSize * int64(c.blocks)); err != nil {
		return err
	}
	c.places = make([]place, 0, c.blocks)
	for chunk, b := range c.chunks {
		for at := 0; at < len(b); {
			c.places = append(c.places, place{binary.BigEndian.Uint64(b[at:]), uint32(chunk), uint32(at)})
			size := binary.LittleEndian.Uint32(b[at+digestSize:])
			if at += frameSize; size != unkept {
				at += int(size)
			}
		}
	}
	slices.SortFunc(c.places, func(x, y place) int {
		if n := cmp.Compare(x.begin, y.begin); n != 0 {
			return n
		}
		return bytes.Compare(c.idAt(x), c.idAt(y))
	})
	return nil
}

func (c *car) idAt(p place) []byte { return c.chunks[p.chunk][p.at : p.at+digestSize] }

// find is the content of a block. A block that was too large to be kept is
// there, with no content.
func (c *car) find(id digest) (data []byte, kept, there bool) {
	begin := binary.BigEndian.Uint64(id[:])
	i, ok := slices.BinarySearchFunc(c.places, id, func(p place, id digest) int {
		if n := cmp.Compare(p.begin, begin); n != 0 {
			return n
		}
		return bytes.Compare(c.idAt(p), id[:])
	})
	if !ok {
		return nil, false, false
	}
	p := c.places[i]
	b := c.chunks[p.chunk][p.at+digestSize:]
	size := binary.LittleEndian.Uint32(b)
	if size == unkept {
		return nil, false, true
	}
	end := 4 + int(size)
	return b[4:end:end], true, true
}
