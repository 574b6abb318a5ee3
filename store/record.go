package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"

	"appview/record"
)

// Source says how a record got into the index.
type Source byte

// The sources of records. Stored: never renumber.
const (
	SourceListRecords Source = 1
	SourceRepo        Source = 2
	SourceLive        Source = 3
)

// String is the source's name in the API.
func (s Source) String() string {
	switch s {
	case SourceListRecords:
		return "listRecords"
	case SourceRepo:
		return "getRepo"
	case SourceLive:
		return "live"
	default:
		return fmt.Sprintf("source %d", byte(s))
	}
}

// Record is an indexed record.
type Record struct {
	DID        syntax.DID
	Collection syntax.NSID
	RKey       syntax.RecordKey
	Rev        syntax.TID // the repo held this record at this rev
	IndexedAt  time.Time
	Seq        uint64 // place in the global order of changes
	Source     Source
	Body       record.Body
}

// URI is the record's at:// address.
func (r Record) URI() record.URI {
	return record.URI{DID: r.DID, Collection: r.Collection, RKey: r.RKey}
}

// Provenance says how the record got into the index, and whether its CID is only
// what the host claimed.
func (r Record) Provenance() string {
	if r.Body.Verified {
		return r.Source.String()
	}
	return r.Source.String() + ", unverified"
}

// Formats of a record row: the first byte.
const (
	formatCBOR byte = 1 // the body is DAG-CBOR whose CID was recomputed
	formatJSON byte = 2 // the body is JSON as received, whose CID is only claimed
)

// Offsets in a record row. The cid's length precedes it.
const (
	rowRev    = 1
	rowTime   = rowRev + 8
	rowSeq    = rowTime + 4
	rowSource = rowSeq + 8
	rowCIDLen = rowSource + 1
	rowCID    = rowCIDLen + 1
)

// recordRow is a record row in bbolt's memory: it dies with the transaction.
type recordRow []byte

// appendRecordRow encodes a row. Revs are kept as the integers that TIDs are.
func appendRecordRow(row []byte, rev syntax.TID, at time.Time, seq uint64, src Source, body record.Body) []byte {
	format := formatJSON
	if body.Verified {
		format = formatCBOR
	}
	id := body.CID.Bytes()
	row = append(row, format)
	row = binary.BigEndian.AppendUint64(row, rev.Integer())
	row = binary.BigEndian.AppendUint32(row, uint32(at.Unix()))
	row = binary.BigEndian.AppendUint64(row, seq)
	row = append(row, byte(src), byte(len(id)))
	row = append(row, id...)
	return append(row, body.Data...)
}

// parseRecordRow checks that the parts of a row are where they should be.
func parseRecordRow(row []byte) (recordRow, error) {
	switch {
	case len(row) < rowCID || len(row) < rowCID+int(row[rowCIDLen]) || len(row) > maxPageLen:
		return nil, fmt.Errorf("%w: a record row of %d bytes", errRow, len(row))
	case row[0] != formatCBOR && row[0] != formatJSON:
		return nil, fmt.Errorf("%w: a record row of format %d", errRow, row[0])
	}
	return row, nil
}

func (r recordRow) verified() bool { return r[0] == formatCBOR }
func (r recordRow) rev() uint64    { return binary.BigEndian.Uint64(r[rowRev:]) }
func (r recordRow) seq() uint64    { return binary.BigEndian.Uint64(r[rowSeq:]) }
func (r recordRow) cid() []byte    { return r[rowCID:][:r[rowCIDLen]] }
func (r recordRow) data() []byte   { return r[rowCID+int(r[rowCIDLen]):] }

// record copies the row out. A verified one is proved anew: a disk that has let a
// byte of it change must not make us serve that.
func (r recordRow) record(did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) (Record, error) {
	id, err := cid.Cast(r.cid())
	if err != nil {
		return Record{}, fmt.Errorf("%w: cid of %s/%s/%s: %w", errRow, did, collection, rkey, err)
	}
	body := record.Body{CID: id, Verified: r.verified(), Data: append([]byte(nil), r.data()...)}
	if !body.Intact() {
		return Record{}, fmt.Errorf("%w: %s/%s/%s is not what its cid %s names", errRow, did, collection, rkey, id)
	}
	return Record{
		DID: did, Collection: collection, RKey: rkey,
		Rev:       syntax.NewTIDFromInteger(r.rev()),
		IndexedAt: time.Unix(int64(binary.BigEndian.Uint32(r[rowTime:])), 0).UTC(),
		Seq:       r.seq(),
		Source:    Source(r[rowSource]),
		Body:      body,
	}, nil
}

// recordsOf is the bucket of a collection's records, nil if there is none.
func recordsOf(tx *bbolt.Tx, collection syntax.NSID) *bbolt.Bucket {
	return tx.Bucket([]byte(recordsBucket)).Bucket([]byte(collection))
}

// Record returns one record, or ErrNotFound. It does not look at the account's
// status: see Account.
func (s *Store) Record(ctx context.Context, uri record.URI) (rec Record, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		n, ok, err := ridOf(tx, uri.DID)
		if err != nil {
			return err
		}
		b := recordsOf(tx, uri.Collection)
		if !ok || b == nil {
			return fmt.Errorf("record %s: %w", uri, ErrNotFound)
		}
		raw := b.Get(recordKey(n, uri.RKey))
		if raw == nil {
			return fmt.Errorf("record %s: %w", uri, ErrNotFound)
		}
		row, err := parseRecordRow(raw)
		if err != nil {
			return fmt.Errorf("record %s: %w", uri, err)
		}
		rec, err = row.record(uri.DID, uri.Collection, uri.RKey)
		return err
	})
	return rec, err
}
