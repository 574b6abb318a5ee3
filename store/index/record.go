package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/record"
	"appview/store/kv"
)

// Source says how a record got into the index.
type Source byte

// The sources of records. Stored: never renumber.
const (
	SourceListRecords Source = 1
	SourceRepo        Source = 2
	SourceLive        Source = 3
	SourceProof       Source = 4 // a record alone, with its signed proof
)

// hashed reports whether the source gives blocks, whose hashes were checked. What came
// from the other ones is proved by its own bytes or not at all.
func (s Source) hashed() bool { return s == SourceRepo || s == SourceProof }

// String is the source's name in the API.
func (s Source) String() string {
	switch s {
	case SourceListRecords:
		return "listRecords"
	case SourceRepo:
		return "getRepo"
	case SourceLive:
		return "live"
	case SourceProof:
		return "sync.getRecord"
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

// Provenance says how the record got into the index, and whether its value cannot be
// hashed to its CID.
func (r Record) Provenance() string {
	if r.Body.Verified {
		return r.Source.String()
	}
	return r.Source.String() + ", unverified"
}

// Proved reports whether the value was hashed, or printed from a block that was: nothing
// that only claims the same CID is better.
func (r Record) Proved() bool { return proofOf(r.Body.Verified, r.Source) != claimedOnly }

// Formats of a record row: the first byte. The body is DAG-CBOR whose CID was
// recomputed, or JSON as received, whose CID is only claimed. A sealed row ends in a
// checksum. The other ones were written before there was that: no bit of a sealed
// row's format makes it one of a row that nothing proves.
const (
	formatCBOR       byte = 1
	formatJSON       byte = 2
	formatSealedCBOR byte = 4
	formatPlainCBOR  byte = 5 // sealed, and its texts are plain: see record.Body
	formatSealedJSON byte = 7
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

// recordRow is a record row without its seal. Most are in bbolt's memory and die
// with the transaction.
type recordRow []byte

// newRecordRow encodes a row to stand under key. Revs are kept as the integers that
// TIDs are.
func newRecordRow(key []byte, rev syntax.TID, at time.Time, seq uint64, src Source, body record.Body) []byte {
	format := formatSealedJSON
	switch {
	case body.Verified && body.Plain:
		format = formatPlainCBOR
	case body.Verified:
		format = formatSealedCBOR
	}
	id := body.CID.Bytes()
	row := make([]byte, 0, recordRowLen(body))
	row = append(row, format)
	row = binary.BigEndian.AppendUint64(row, rev.Integer())
	row = binary.BigEndian.AppendUint32(row, uint32(at.Unix()))
	row = binary.BigEndian.AppendUint64(row, seq)
	row = append(row, byte(src), byte(len(id)))
	row = append(row, id...)
	row = append(row, body.Data...)
	return kv.Seal(key, row)
}

// recordRowLen is the length of the row of a record with that body.
func recordRowLen(body record.Body) int {
	return rowCID + body.CID.ByteLen() + len(body.Data) + kv.SealLen
}

// recordBytes is what a record takes whose key and row are so long: the row, the log
// entry and the entry of the key index, which may come later.
func recordBytes(key, row int) int64 {
	return entryBytes(key, row) + logBytes(key) + indexBytes(key)
}

// parseRecordRow checks that the row under key is as it was written, as far as it
// says, and that its parts are where they should be.
func parseRecordRow(key, row []byte) (recordRow, error) {
	if len(row) < rowCID+kv.SealLen || len(row) > kv.MaxRowLen {
		return nil, fmt.Errorf("%w: a record row of %d bytes", kv.ErrRow, len(row))
	}
	switch row[0] {
	case formatCBOR, formatJSON:
	case formatSealedJSON, formatSealedCBOR, formatPlainCBOR:
		var fits bool
		if row, fits = kv.Unseal(key, row); !fits {
			return nil, fmt.Errorf("%w: a record row that its checksum does not fit", kv.ErrRow)
		}
	default:
		return nil, fmt.Errorf("%w: a record row of format %d", kv.ErrRow, row[0])
	}
	if len(row) < rowCID+int(row[rowCIDLen]) {
		return nil, fmt.Errorf("%w: a record row of %d bytes", kv.ErrRow, len(row))
	}
	return row, nil
}

// withRev is the row with another rev, sealed for key.
func (r recordRow) withRev(key []byte, rev syntax.TID) []byte {
	row := make([]byte, 0, len(r)+kv.SealLen)
	row = append(row, r...)
	switch row[0] {
	case formatCBOR:
		row[0] = formatSealedCBOR
	case formatJSON:
		row[0] = formatSealedJSON
	}
	binary.BigEndian.PutUint64(row[rowRev:], rev.Integer())
	return kv.Seal(key, row)
}

func (r recordRow) verified() bool { return r[0] != formatJSON && r[0] != formatSealedJSON }
func (r recordRow) plain() bool    { return r[0] == formatPlainCBOR }
func (r recordRow) sealed() bool   { return r[0] >= formatSealedCBOR }
func (r recordRow) rev() uint64    { return binary.BigEndian.Uint64(r[rowRev:]) }
func (r recordRow) seq() uint64    { return binary.BigEndian.Uint64(r[rowSeq:]) }
func (r recordRow) source() Source { return Source(r[rowSource]) }
func (r recordRow) cid() []byte    { return r[rowCID:][:r[rowCIDLen]] }
func (r recordRow) data() []byte   { return r[rowCID+int(r[rowCIDLen]):] }

// spelling spells revs, and remembers the last: records that follow each other often
// have the same.
type spelling struct {
	rev  uint64
	text syntax.TID
}

func (s *spelling) of(rev uint64) syntax.TID {
	if s.text == "" || s.rev != rev {
		s.rev, s.text = rev, syntax.NewTIDFromInteger(rev)
	}
	return s.text
}

// fill makes rec the record that the row is, in the row's memory. A row without a seal
// is proved by its CID, if that is possible: a disk that has let a byte of it change
// must not make us serve that.
func (r recordRow) fill(rec *Record, revs *spelling, did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) error {
	id, err := cid.Cast(r.cid())
	if err != nil {
		return fmt.Errorf("%w: cid of %s/%s/%s: %w", kv.ErrRow, did, collection, rkey, err)
	}
	body := record.Body{CID: id, Verified: r.verified(), Plain: r.plain(), Data: r.data()}
	if !r.sealed() && !body.Intact() {
		return fmt.Errorf("%w: %s/%s/%s is not what its cid %s names", kv.ErrRow, did, collection, rkey, id)
	}
	rec.DID, rec.Collection, rec.RKey = did, collection, rkey
	rec.Rev = revs.of(r.rev())
	rec.IndexedAt = time.Unix(int64(binary.BigEndian.Uint32(r[rowTime:])), 0).UTC()
	rec.Seq = r.seq()
	rec.Source = r.source()
	rec.Body = body
	return nil
}

// readRow makes rec the record that stands under a key of a records bucket, in the
// memory of its row.
func readRow(rec *Record, revs *spelling, did syntax.DID, collection syntax.NSID, key, raw []byte) error {
	if len(key) > kv.MaxKeyLen { // before it is copied, as the row's
		return fmt.Errorf("%w: record key of %d bytes of %s", kv.ErrRow, len(key), collection)
	}
	_, rkey, ok := splitRecordKey(key)
	if !ok {
		return fmt.Errorf("%w: record key %x of %s", kv.ErrRow, key, collection)
	}
	row, err := parseRecordRow(key, raw)
	if err != nil {
		return fmt.Errorf("record %s/%s/%s: %w", did, collection, rkey, err)
	}
	return row.fill(rec, revs, did, collection, rkey)
}

// passer hands records on, one after the other, in the same memory.
type passer struct {
	each   func(*Record) error
	row    []byte
	rec    Record
	revs   spelling
	passed int
	enough bool // each has said so
}

func newPasser(each func(*Record) error) *passer {
	return &passer{each: each, row: make([]byte, 0, standardRow)}
}

// standardRow is room for most rows.
const standardRow = 1 << 10

// pass hands on the record under a key of a records bucket.
func (p *passer) pass(did syntax.DID, collection syntax.NSID, key, raw []byte) error {
	if err := p.read(did, collection, key, raw); err != nil {
		return err
	}
	return p.hand()
}

// read reads the record to hand on. It is taken out of bbolt's memory before it is
// looked at: a page that goes bad must not fail in somebody else's code.
func (p *passer) read(did syntax.DID, collection syntax.NSID, key, raw []byte) error {
	row, err := taken(p.row, raw)
	if err != nil {
		return fmt.Errorf("record %s/%s/%.512s: %w", did, collection, key[min(ridLen, len(key)):], err)
	}
	p.row = row
	return readRow(&p.rec, &p.revs, did, collection, key, row)
}

// hand calls each.
func (p *passer) hand() error {
	p.passed++
	defer kv.Rethrow()
	err := p.each(&p.rec)
	if errors.Is(err, ErrStop) {
		p.enough, err = true, nil
	}
	return err
}

// full reports whether a page of at most so many records is at its end.
func (p *passer) full(limit int) bool { return p.enough || p.passed >= limit }

// taken copies a row out of bbolt's memory, into that of buf. Its length is looked at
// first: damage may have made it that of gigabytes.
func taken(buf, raw []byte) ([]byte, error) {
	if len(raw) > kv.MaxRowLen {
		return nil, fmt.Errorf("%w: a record row of %d bytes", kv.ErrRow, len(raw))
	}
	return append(buf[:0], raw...), nil
}

// recordsOf is the bucket of a collection's records, nil if there is none.
func recordsOf(tx *kv.Tx, collection syntax.NSID) *kv.Bucket {
	return tx.Bucket([]byte(recordsBucket)).Bucket([]byte(collection))
}

// recordOf copies a record of repo n out of its collection's bucket, or is
// kv.ErrNotFound.
func recordOf(b *kv.Bucket, n rid, uri record.URI) (rec Record, err error) {
	key := recordKey(n, uri.RKey)
	raw := b.Get(key)
	if raw == nil {
		return Record{}, fmt.Errorf("record %s: %w", uri, kv.ErrNotFound)
	}
	row, err := taken(nil, raw)
	if err != nil {
		return Record{}, fmt.Errorf("record %s: %w", uri, err)
	}
	err = readRow(&rec, new(spelling), uri.DID, uri.Collection, key, row)
	return rec, err
}

// Record returns one record, or kv.ErrNotFound. It does not look at the account's
// status: see Account.
func (x *Index) Record(ctx context.Context, uri record.URI) (rec Record, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		n, account, err := accountOf(tx, uri.DID)
		if err != nil {
			return err
		}
		b := recordsOf(tx, uri.Collection)
		if account == "" || b == nil {
			return fmt.Errorf("record %s: %w", uri, kv.ErrNotFound)
		}
		rec, err = recordOf(b, n, uri)
		return err
	})
	return rec, err
}
