package index

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store/kv"
	"appview/store/kv/kvtest"
)

// smallBody is the verified body of {"n":1}.
func smallBody(tb testing.TB) record.Body {
	tb.Helper()
	block := []byte("\xa1\x61n\x01")
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum(block)
	if err != nil {
		tb.Fatal(err)
	}
	body, err := record.FromJSON([]byte(`{"n":1}`), id.String())
	if err != nil || !body.Verified || !body.Plain {
		tb.Fatalf("%+v, %v", body, err)
	}
	return body
}

// TestChangedRowIsNoticed changes every bit of sealed rows, and bytes of the keys that they
// stand under: also of what no CID proves, such as a rev, or a value as it was received.
func TestChangedRowIsNoticed(t *testing.T) {
	t.Parallel()
	verified := smallBody(t)
	escaped := verified
	escaped.Plain = false
	received := record.Body{CID: verified.CID, Data: []byte(`{"n": 1.0}`)}
	key := recordKey(7, "self")
	for _, body := range []record.Body{verified, escaped, received} {
		raw := newRecordRow(key, "3kgk4qs6aa22a", time.Unix(1_800_000_000, 0), 9, SourceRepo, body)
		var rec Record
		if err := readRow(&rec, new(spelling), "did:plc:a", "com.example.note", key, raw); err != nil || rec.Rev != "3kgk4qs6aa22a" || rec.Seq != 9 ||
			rec.Body.Verified != body.Verified || rec.Body.Plain != body.Plain || !bytes.Equal(rec.Body.Data, body.Data) {
			t.Fatalf("read back: %+v, %v", rec, err)
		}
		for bit, changed := range kvtest.Flips(raw) {
			if err := readRow(&rec, new(spelling), "did:plc:a", "com.example.note", key, changed); !errors.Is(err, kv.ErrRow) {
				t.Errorf("verified %t: %s of the row has changed: %v", body.Verified, bit, err)
			}
		}
		for i := range key {
			other := bytes.Clone(key)
			other[i] ^= 1
			if _, err := parseRecordRow(other, raw); !errors.Is(err, kv.ErrRow) {
				t.Errorf("byte %d of the key has changed: %v", i, err)
			}
		}
	}
}

// TestRowWithoutSealIsRead has rows as they were before there were seals. A verified one
// is proved by its CID.
func TestRowWithoutSealIsRead(t *testing.T) {
	t.Parallel()
	body := smallBody(t)
	key := recordKey(7, "self")
	raw := newRecordRow(key, "3kgk4qs6aa22a", time.Unix(1_800_000_000, 0), 9, SourceRepo, body)
	raw = raw[:len(raw)-kv.SealLen]
	raw[0] = formatCBOR
	var rec Record
	if err := readRow(&rec, new(spelling), "did:plc:a", "com.example.note", key, raw); err != nil || !rec.Body.Verified || rec.Body.Plain {
		t.Fatalf("%+v, %v", rec, err)
	}
	raw[len(raw)-1] ^= 1
	if err := readRow(&rec, new(spelling), "did:plc:a", "com.example.note", key, raw); !errors.Is(err, kv.ErrRow) {
		t.Errorf("its body has changed: %v", err)
	}
}

// TestLengthIsLookedAtBeforeItIsCopied has a row and a key of lengths that only damage
// gives them: to copy what they claim may take all the memory there is.
func TestLengthIsLookedAtBeforeItIsCopied(t *testing.T) {
	t.Parallel()
	to := newPasser(func(*Record) error { t.Error("it was handed on"); return nil })
	vast := make([]byte, kv.MaxRowLen+1) // which nothing touches
	err := to.pass("did:plc:a", "com.example.note", recordKey(7, "self"), vast)
	if !errors.Is(err, kv.ErrRow) || cap(to.row) != standardRow {
		t.Errorf("a row of %d bytes: %v, with room for %d", len(vast), err, cap(to.row))
	}
	if copied, err := taken(nil, vast); !errors.Is(err, kv.ErrRow) || copied != nil {
		t.Errorf("a row of %d bytes: %d were copied, %v", len(vast), len(copied), err)
	}
	body := smallBody(t)
	key := recordKey(7, syntax.RecordKey(make([]byte, kv.MaxKeyLen)))
	row := newRecordRow(key, "3kgk4qs6aa22a", time.Unix(1_800_000_000, 0), 9, SourceRepo, body)
	if err := to.pass("did:plc:a", "com.example.note", key, row); !errors.Is(err, kv.ErrRow) || len(err.Error()) > 1<<10 || to.rec.RKey != "" {
		t.Errorf("a key of %d bytes: an error of %d", len(key), len(fmt.Sprint(err)))
	}
}
