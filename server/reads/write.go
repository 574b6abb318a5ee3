package reads

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"appview/store/index"
)

// Records are put together by hand: reflection would cost more than everything
// else. No identifier, CID or cursor holds anything that JSON would escape.

// printer prints records as the admin API and the export show them.
type printer struct {
	provenance bool // is shown
	at         time.Time
	stamp      []byte // at, printed: many records that follow each other have the same
}

func (p *printer) append(dst []byte, rec *index.Record) ([]byte, error) {
	if len(p.stamp) == 0 || !p.at.Equal(rec.IndexedAt) {
		p.at = rec.IndexedAt
		p.stamp = p.at.UTC().AppendFormat(p.stamp[:0], time.RFC3339)
	}
	dst = appendHead(dst, rec)
	dst = append(append(dst, `,"did":"`...), rec.DID...)
	dst = append(append(dst, `","collection":"`...), rec.Collection...)
	dst = append(append(dst, `","rkey":"`...), rec.RKey...)
	dst = append(append(dst, `","rev":"`...), rec.Rev...)
	dst = append(append(dst, `","indexed_at":"`...), p.stamp...)
	if p.provenance {
		dst = append(append(dst, `","provenance":"`...), rec.Provenance()...)
	}
	return appendValue(append(dst, '"'), rec)
}

// appendXRPC appends a record as the lexicons of getRecord and listRecords have it.
func appendXRPC(dst []byte, rec *index.Record) ([]byte, error) {
	return appendValue(appendHead(dst, rec), rec)
}

// appendHead begins a record's object with its address and its CID.
func appendHead(dst []byte, rec *index.Record) []byte {
	dst = append(append(dst, `{"uri":"at://`...), rec.DID...)
	dst = append(append(dst, '/'), rec.Collection...)
	dst = append(append(dst, '/'), rec.RKey...)
	dst = rec.Body.AppendCID(append(dst, `","cid":"`...))
	return append(dst, '"')
}

// appendValue appends a record's value, on one line, and ends the object.
func appendValue(dst []byte, rec *index.Record) (_ []byte, err error) {
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

// recordTag names the bytes of one record's answer: its CID, where the value was
// hashed to it. A value that was not may change under the same CID.
func (rd *Reads) recordTag(rec *index.Record) string {
	if rec.Body.Verified {
		return rec.Body.CID.String()
	}
	return rd.out.TagOf(appendTag(nil, rec))
}
