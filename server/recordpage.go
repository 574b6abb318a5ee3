package server

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
)

const (
	// readStep is how many records are read in one transaction.
	readStep = 50
	// pageBytes, as they are printed, end a page early. Its cursor goes on behind it.
	pageBytes = 8 << 20
	// pageHeld is how much of a page is printed before the first of it is written. A page
	// that ends before has a tag, and may be cached.
	pageHeld = cacheEntry
	// pagePiece is how much is printed at once of a page that is written while it is read.
	pagePiece = 256 << 10
	// pageSendBuffer is what the system keeps of such a page that the client has not taken.
	pageSendBuffer = 256 << 10
	// zipBytes is what a compressor takes, with its output.
	zipBytes = 1<<20 + 256<<10 + answerPiece
	// answerRoom is charged for an answer before it is known how long it is.
	answerRoom = pageHeld
)

// pageEndpoint reads a page of records.
type pageEndpoint func(r *http.Request, p *recordPage) error

// recordPage is a page of records, which are printed while they are read: they need not
// be copied first. One that outgrows pageHeld is written while it is read, between two
// transactions. Such a page has no tag, since its bytes are not known beforehand.
type recordPage struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	limit int                                         // of records
	show  func([]byte, *index.Record) ([]byte, error) // appends a record, printed

	buf    *[]byte // from Server.buffer, until the page is written while it is read
	count  int     // of records
	size   int     // bytes printed and written
	last   syntax.RecordKey
	cursor string // empty: nothing follows
	tag    []byte // what the page's tag is the hash of

	stream io.Writer    // nil: the page is still held
	zip    *gzip.Writer // of stream; nil: it is not compressed
}

// answerPage answers with a page of records.
func (s *Server) answerPage(e pageEndpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.sendPage(w, r, e, keptAs{}) })
}

func (s *Server) sendPage(w http.ResponseWriter, r *http.Request, e pageEndpoint, as keptAs) {
	p := s.newPage(w, r)
	defer p.close()
	err := e(r, p)
	if err == nil {
		err = p.end(as)
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

// newPage is an empty page, of as many records and in the way that print says.
func (s *Server) newPage(w http.ResponseWriter, r *http.Request) *recordPage {
	p := &recordPage{s: s, w: w, r: r, buf: s.buffer(), tag: make([]byte, 0, tagRoom)}
	*p.buf = append((*p.buf)[:0], `{"records":[`...)
	return p
}

// print sets how many records the page may have and how they are printed.
func (p *recordPage) print(limit int, show func([]byte, *index.Record) ([]byte, error)) {
	p.limit, p.show = limit, show
}

// add appends a record, of which it keeps nothing. It ends the read of a page that is
// full, or has to be written first.
func (p *recordPage) add(rec *index.Record) error {
	out := *p.buf
	if p.count > 0 {
		out = append(out, ',')
	}
	out, err := p.show(out, rec)
	if err != nil {
		return err
	}
	*p.buf = out
	p.count++
	p.last = rec.RKey
	p.tag = appendTag(p.tag, rec)
	if p.full() || len(out) >= p.room() {
		return index.ErrStop
	}
	return nil
}

// full reports whether the page shall not get any longer.
func (p *recordPage) full() bool { return p.count >= p.limit || p.size+len(*p.buf) >= pageBytes }

// room is how much is printed before it is written.
func (p *recordPage) room() int {
	switch {
	case p.stream != nil:
		return pagePiece
	case canBreakOff(p.r):
		return pageHeld
	default:
		return math.MaxInt
	}
}

// canBreakOff reports whether the client sees that an answer breaks off whose length was
// not said before. In HTTP/1.0 that is its end.
func canBreakOff(r *http.Request) bool { return r.ProtoAtLeast(1, 1) }

// roomFor is charged for an answer to r before it is known how long it is.
func roomFor(r *http.Request) int64 {
	if canBreakOff(r) {
		return answerRoom
	}
	return pageBytes
}

// step is how many records to read next.
func (p *recordPage) step() int { return min(readStep, p.limit-p.count) }

// flush writes what has outgrown the page's room. No transaction may be open: the
// client may take its time.
func (p *recordPage) flush() error {
	if len(*p.buf) < p.room() {
		return nil
	}
	if err := p.write(); err != nil {
		return err
	}
	return p.s.resume(p.w, p.r)
}

// write writes what is printed.
func (p *recordPage) write() error {
	if p.stream == nil {
		p.begin()
	}
	chargeFor(p.w, cap(*p.buf)+p.overhead())
	if _, err := p.stream.Write(*p.buf); err != nil {
		return fmt.Errorf("write a page of records: %w", err)
	}
	p.size += len(*p.buf)
	if cap(*p.buf) > 2*pagePiece { // of the beginning, or of a record that is long beyond measure
		p.s.keep(p.buf)
		p.buf = new([]byte)
	}
	*p.buf = (*p.buf)[:0]
	chargeFor(p.w, max(cap(*p.buf), pagePiece)+p.overhead())
	return nil
}

// overhead is what it takes to write a page while it is read, beside what is printed.
func (p *recordPage) overhead() int {
	if p.zip != nil {
		return zipBytes
	}
	return 0
}

// begin begins to write the page.
func (p *recordPage) begin() {
	h := p.w.Header()
	h.Add("Vary", "Accept-Encoding")
	h.Set("Content-Type", "application/json")
	boundSendBuffer(p.r, pageSendBuffer)
	// What net/http allows for a request to come would end the context of its answer.
	_ = http.NewResponseController(p.w).SetReadDeadline(time.Time{})
	p.stream = p.w
	if acceptsGzip(p.r) {
		h.Set("Content-Encoding", "gzip")
		out := bufio.NewWriterSize(p.w, answerPiece)
		p.zip = p.s.zipper()
		p.zip.Reset(out)
		p.stream = zipped{p.zip, out}
	}
	p.w.WriteHeader(http.StatusOK)
}

// zipped hands on what a compressor makes in larger pieces.
type zipped struct {
	*gzip.Writer

	out *bufio.Writer
}

// end answers with the page, or with what is left of it.
func (p *recordPage) end(as keptAs) error {
	if p.stream == nil {
		rep := p.reply(isOpen(p.r))
		rep.kept = as
		p.buf = nil // send gives it back
		return p.s.send(p.w, p.r, rep)
	}
	p.finish()
	if err := p.write(); err != nil {
		return err
	}
	z, is := p.stream.(zipped)
	if !is {
		return nil
	}
	if err := errors.Join(z.Close(), z.out.Flush()); err != nil {
		return fmt.Errorf("end a page of records: %w", err)
	}
	return nil
}

// finish prints the end of the page.
func (p *recordPage) finish() {
	out := append(*p.buf, ']')
	if p.cursor != "" {
		out = append(append(append(out, `,"cursor":"`...), p.cursor...), '"')
	}
	*p.buf = append(out, "}\n"...)
}

// reply is a page that was held until its end. One that is tagged is not sent to a client
// that has it.
func (p *recordPage) reply(tagged bool) reply {
	tag := ""
	if tagged {
		tag = p.s.tagOf(append(p.tag, p.cursor...))
	}
	if had := knownTag(p.r, tag); had != "" {
		p.s.keep(p.buf)
		return reply{status: http.StatusNotModified, tag: had}
	}
	p.finish()
	return reply{status: http.StatusOK, tag: tag, json: p.buf}
}

// close gives back what the page was made with.
func (p *recordPage) close() {
	if p.zip != nil {
		p.zip.Reset(io.Discard)
		p.s.zips.Put(p.zip)
	}
	if p.buf != nil {
		p.s.keep(p.buf)
	}
}

// appendTag appends what names a printed record without a look at its value: every
// change gives a record another place in the order of changes. The rest keeps databases
// apart: one that was lost and filled anew may give the same places to the same values.
func appendTag(dst []byte, rec *index.Record) []byte {
	dst = binary.BigEndian.AppendUint64(dst, rec.Seq)
	dst = binary.BigEndian.AppendUint64(dst, uint64(rec.IndexedAt.Unix()))
	id := rec.Body.CID.KeyString()
	return append(append(dst, rec.Rev...), id[max(0, len(id)-tagCID):]...)
}

const (
	// tagCID is how many bytes of a record's CID its page's tag is made of, and
	// tagRoom room for what most pages' tags are made of.
	tagCID  = 8
	tagRoom = 4 << 10
	// tagBytes is how much of a hash is a tag.
	tagBytes = 15
)

// tagOf is a tag of what is given, and of the program's version, which keeps apart the
// ways to print it.
func (s *Server) tagOf(data []byte) string {
	hash := sha256.Sum256(append(append(data, 0), s.cfg.Version...))
	return base64.RawURLEncoding.EncodeToString(hash[:tagBytes])
}
