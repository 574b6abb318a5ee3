package reads

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
	"appview/store/index"
)

const (
	// readStep is how many records are read in one transaction.
	readStep = 50
	// pageHeld is how much of a page is printed before the first of it is written. A page
	// that ends before has a tag, and may be cached.
	pageHeld = answer.Room
	// pagePiece is how much is printed at once of a page that is written while it is read.
	pagePiece = 256 << 10
	// pageSendBuffer is what the system keeps of such a page that the client has not taken.
	pageSendBuffer = 256 << 10
	// zipBytes is what a compressor takes, with its output.
	zipBytes = 1<<20 + 256<<10 + answer.Piece
)

// pageEndpoint reads a page of records.
type pageEndpoint func(r *http.Request, p *recordPage) error

// recordPage is a page of records, which are printed while they are read: they need not
// be copied first. One that outgrows pageHeld is written while it is read, between two
// transactions. Such a page has no tag, since its bytes are not known beforehand.
type recordPage struct {
	rd    *Reads
	out   *answer.Answers
	w     http.ResponseWriter
	r     *http.Request
	limit int                                         // of records
	show  func([]byte, *index.Record) ([]byte, error) // appends a record, printed

	buf    *[]byte // from answer.Answers.Buffer, until the page is written while it is read
	count  int     // of records
	size   int     // bytes printed and written
	last   syntax.RecordKey
	cursor string // empty: nothing follows
	tag    []byte // what the page's tag is the hash of

	stream io.Writer    // nil: the page is still held
	zip    *gzip.Writer // of stream; nil: it is not compressed
}

// answerPage answers with a page of records.
func (rd *Reads) answerPage(e pageEndpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { rd.sendPage(w, r, e, keptAs{}) })
}

func (rd *Reads) sendPage(w http.ResponseWriter, r *http.Request, e pageEndpoint, as keptAs) {
	p := rd.newPage(w, r)
	defer p.close()
	err := e(r, p)
	if err == nil {
		err = p.end(as)
	}
	if err != nil {
		rd.out.Fail(w, r, err)
	}
}

// newPage is an empty page, of as many records and in the way that print says.
func (rd *Reads) newPage(w http.ResponseWriter, r *http.Request) *recordPage {
	p := &recordPage{rd: rd, out: rd.out, w: w, r: r, buf: rd.out.Buffer(), tag: make([]byte, 0, tagRoom)}
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
func (p *recordPage) full() bool { return p.count >= p.limit || p.size+len(*p.buf) >= answer.PageBytes }

// room is how much is printed before it is written.
func (p *recordPage) room() int {
	switch {
	case p.stream != nil:
		return pagePiece
	case answer.CanBreakOff(p.r):
		return pageHeld
	default:
		return math.MaxInt
	}
}

// roomFor is charged for an answer to r before it is known how long it is.
func roomFor(r *http.Request) int64 {
	if answer.CanBreakOff(r) {
		return answer.Room
	}
	return answer.PageBytes
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
	return p.out.Resume(p.w, p.r)
}

// write writes what is printed.
func (p *recordPage) write() error {
	if p.stream == nil {
		p.begin()
	}
	answer.ChargeFor(p.w, cap(*p.buf)+p.overhead())
	if _, err := p.stream.Write(*p.buf); err != nil {
		return fmt.Errorf("write a page of records: %w", err)
	}
	p.size += len(*p.buf)
	if cap(*p.buf) > 2*pagePiece { // of the beginning, or of a record that is long beyond measure
		p.out.Recycle(p.buf)
		p.buf = new([]byte)
	}
	*p.buf = (*p.buf)[:0]
	answer.ChargeFor(p.w, max(cap(*p.buf), pagePiece)+p.overhead())
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
	answer.BoundSendBuffer(p.r, pageSendBuffer)
	// What net/http allows for a request to come would end the context of its answer.
	_ = http.NewResponseController(p.w).SetReadDeadline(time.Time{})
	p.stream = p.w
	if answer.AcceptsGzip(p.r) {
		h.Set("Content-Encoding", "gzip")
		out := bufio.NewWriterSize(p.w, answer.Piece)
		p.zip = p.out.Zipper()
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
		rep := p.reply(answer.IsOpen(p.r))
		if as.key != "" {
			rep.Keep = func(done answer.Ready) { p.rd.remember(p.r, as, done) }
		}
		p.buf = nil // send gives it back
		return p.rd.out.Send(p.w, p.r, rep)
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
func (p *recordPage) reply(tagged bool) answer.Reply {
	tag := ""
	if tagged {
		tag = p.out.TagOf(append(p.tag, p.cursor...))
	}
	if had := answer.KnownTag(p.r, tag); had != "" {
		p.out.Recycle(p.buf)
		return answer.Reply{Status: http.StatusNotModified, Tag: had}
	}
	p.finish()
	return answer.Reply{Status: http.StatusOK, Tag: tag, JSON: p.buf}
}

// close gives back what the page was made with.
func (p *recordPage) close() {
	if p.zip != nil {
		p.zip.Reset(io.Discard)
		p.out.Zips.Put(p.zip)
	}
	if p.buf != nil {
		p.out.Recycle(p.buf)
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
)
