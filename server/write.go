package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"appview/store"
)

// Records are put together by hand: reflection would cost more than everything
// else. No identifier, CID or cursor holds anything that JSON would escape.

// append appends the page as JSON.
func (p *recordPage) append(dst []byte) (_ []byte, err error) {
	dst = append(dst, `{"records":[`...)
	for i := range p.records {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendRecord(dst, &p.records[i], true); err != nil {
			return dst, err
		}
	}
	dst = append(dst, ']')
	if p.cursor != "" {
		dst = append(append(append(dst, `,"cursor":"`...), p.cursor...), '"')
	}
	return append(dst, "}\n"...), nil
}

// appendXRPC appends the page as the lexicon of listRecords has it.
func (p *recordPage) appendXRPC(dst []byte) (_ []byte, err error) {
	dst = append(dst, '{')
	if p.cursor != "" {
		dst = append(append(append(dst, `"cursor":"`...), p.cursor...), `",`...)
	}
	dst = append(dst, `"records":[`...)
	for i := range p.records {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendXRPC(dst, &p.records[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, "]}\n"...), nil
}

// appendRecord appends a record as the admin API and the export show it.
func appendRecord(dst []byte, rec *store.Record, provenance bool) ([]byte, error) {
	dst = appendHead(dst, rec)
	dst = append(append(dst, `,"did":"`...), rec.DID...)
	dst = append(append(dst, `","collection":"`...), rec.Collection...)
	dst = append(append(dst, `","rkey":"`...), rec.RKey...)
	dst = append(append(dst, `","rev":"`...), rec.Rev...)
	dst = rec.IndexedAt.UTC().AppendFormat(append(dst, `","indexed_at":"`...), time.RFC3339)
	if provenance {
		dst = append(append(dst, `","provenance":"`...), rec.Provenance()...)
	}
	return appendValue(append(dst, '"'), rec)
}

// appendXRPC appends a record as the lexicons of getRecord and listRecords have it.
func appendXRPC(dst []byte, rec *store.Record) ([]byte, error) {
	return appendValue(appendHead(dst, rec), rec)
}

// appendHead begins a record's object with its address and its CID.
func appendHead(dst []byte, rec *store.Record) []byte {
	dst = append(append(dst, `{"uri":"at://`...), rec.DID...)
	dst = append(append(dst, '/'), rec.Collection...)
	dst = append(append(dst, '/'), rec.RKey...)
	dst = rec.Body.AppendCID(append(dst, `","cid":"`...))
	return append(dst, '"')
}

// appendValue appends a record's value, on one line, and ends the object.
func appendValue(dst []byte, rec *store.Record) (_ []byte, err error) {
	dst = append(dst, `,"value":`...)
	if rec.Body.Verified {
		dst, err = rec.Body.AppendJSON(dst)
	} else { // as received, which may be over many lines
		line := bytes.NewBuffer(dst)
		err = json.Compact(line, rec.Body.Data)
		dst = line.Bytes()
	}
	if err != nil {
		return dst, fmt.Errorf("record %s: %w", rec.URI(), err)
	}
	return append(dst, '}'), nil
}

// tagBytes is how much of a hash is a tag.
const tagBytes = 15

// recordTag names the bytes of one record's answer: its CID, where the value was
// hashed to it. A value that was not may change under the same CID.
func (s *Server) recordTag(rec *store.Record) string {
	if rec.Body.Verified {
		return rec.Body.CID.String()
	}
	return s.listTag([]store.Record{*rec}, "")
}

// listTag names the bytes of a list's answer without looking at the values: every
// change gives a record another place in the order of changes. The CIDs keep
// databases apart, and the program's version the ways to print them.
func (s *Server) listTag(records []store.Record, cursor string) string {
	hash := sha256.New()
	line := make([]byte, 0, 128)
	for i := range records {
		rec := &records[i]
		line = binary.BigEndian.AppendUint64(line[:0], rec.Seq)
		line = append(line, rec.Body.CID.KeyString()...)
		line = append(line, rec.Rev...)
		_, _ = hash.Write(line) // a hash takes everything
	}
	_, _ = hash.Write(append(append(append(line[:0], cursor...), 0), s.cfg.Version...))
	return base64.RawURLEncoding.EncodeToString(hash.Sum(line[:0])[:tagBytes])
}
