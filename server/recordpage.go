package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

const (
	// readStep is how many records are read in one transaction.
	readStep = 50
	// pageBytes, as they are printed, end a page early. Its cursor goes on behind it.
	pageBytes = 8 << 20
)

// recordPage is a page of records, which are printed while they are read: they need not
// be copied first.
type recordPage struct {
	s     *Server
	limit int                                         // of records
	show  func([]byte, *store.Record) ([]byte, error) // appends a record, printed

	buf    *[]byte // from Server.buffer
	count  int     // of records
	last   syntax.RecordKey
	cursor string // empty: nothing follows
	tag    []byte // what the page's tag is the hash of
}

// newPage begins a page of records that are printed in the way given.
func (s *Server) newPage(limit int, show func([]byte, *store.Record) ([]byte, error)) *recordPage {
	p := &recordPage{s: s, limit: limit, show: show, buf: s.buffer(), tag: make([]byte, 0, tagRoom)}
	*p.buf = append((*p.buf)[:0], `{"records":[`...)
	return p
}

// add appends a record, of which it keeps nothing. It ends the read of a page that is
// full.
func (p *recordPage) add(rec *store.Record) error {
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
	if p.full() {
		return store.ErrEnough
	}
	return nil
}

// full tells whether the page shall not get any longer.
func (p *recordPage) full() bool { return p.count >= p.limit || len(*p.buf) >= pageBytes }

// step is how many records to read next.
func (p *recordPage) step() int { return min(readStep, p.limit-p.count) }

// reply ends the page. One that is tagged is not sent to a client that has it.
func (p *recordPage) reply(r *http.Request, tagged bool) reply {
	tag := ""
	if tagged {
		tag = p.s.tagOf(append(p.tag, p.cursor...))
	}
	if had := knownTag(r, tag); had != "" {
		p.s.keep(p.buf)
		return reply{status: http.StatusNotModified, tag: had}
	}
	out := append(*p.buf, ']')
	if p.cursor != "" {
		out = append(append(append(out, `,"cursor":"`...), p.cursor...), '"')
	}
	*p.buf = append(out, "}\n"...)
	return reply{status: http.StatusOK, tag: tag, json: p.buf}
}

// appendTag appends what names a printed record without a look at its value: every
// change gives a record another place in the order of changes. The rest keeps databases
// apart: one that was lost and filled anew may give the same places to the same values.
func appendTag(dst []byte, rec *store.Record) []byte {
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
