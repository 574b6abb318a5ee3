package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
	"appview/store/kv/kvtest"
)

// decoders are those of every table.
func decoders() []kvtest.Decoder {
	return []kvtest.Decoder{kvtest.DecoderOf(denials), kvtest.DecoderOf(purges), kvtest.DecoderOf(repos), kvtest.DecoderOf(counts)}
}

// FuzzRows reads anything as a row of every table.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x01{}", "\x02{}", "\x01null", "\x01[]", `\x01{"seq":1}`,
		"\x01{\"did\":\"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\",\"account\":\"active\",\"collections\":{\"com.example.note\":{\"count\":3}}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		for _, d := range decoders() {
			d.WantSameAgain(t, row)
		}
	})
}

// FuzzRecordRow reads anything as the row of a record, and with a seal put to it that
// fits: what can be read is written as it was.
func FuzzRecordRow(f *testing.F) {
	key := recordKey(1, "x")
	sealed := newRecordRow(key, "3kgk4qs6aa22a", time.Unix(1_800_000_000, 0), 7, SourceRepo, smallBody(f))
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-kv.SealLen])
	f.Add([]byte("\x02"))
	f.Add(bytes.Repeat([]byte{1}, rowCID+1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, raw := range [][]byte{raw, binary.BigEndian.AppendUint32(bytes.Clone(raw), kv.Checksum(key, raw))} {
			var rec Record
			err := readRow(&rec, new(spelling), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "com.example.note", key, raw)
			if err != nil {
				if !errors.Is(err, kv.ErrRow) {
					t.Fatalf("%x: %v", raw, err)
				}
				continue
			}
			row, err := parseRecordRow(key, raw)
			if err != nil {
				t.Fatalf("%x: read, but %v", raw, err)
			}
			again := newRecordRow(key, rec.Rev, rec.IndexedAt, rec.Seq, rec.Source, rec.Body)
			if !row.sealed() { // is sealed when it is written, and may be known as plain then
				again = append([]byte{raw[0]}, again[1:len(again)-kv.SealLen]...)
			}
			if row.rev()>>63 == 0 && !bytes.Equal(again, raw) {
				t.Fatalf("%x is written as %x", raw, again)
			}
		}
	})
}

// FuzzKeys makes keys of anything: they are taken apart into what they were made
// of, and stand in the order of their parts.
func FuzzKeys(f *testing.F) {
	f.Add("com.example.note", "self", uint32(1), "com.example.notes", "self2", uint32(256))
	f.Add("a.b.c", "~", uint32(0), "a.b.c", "-", uint32(1<<31))
	f.Fuzz(func(t *testing.T, collection1, rkey1 string, n1 uint32, collection2, rkey2 string, n2 uint32) {
		const did = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
		for _, s := range []string{collection1, rkey1, collection2, rkey2} {
			if strings.ContainsAny(s, "\x00\x01") {
				return // no identifier can hold them
			}
		}
		if rkey1 != "" {
			if n, rkey, ok := splitRecordKey(recordKey(rid(n1), syntax.RecordKey(rkey1))); !ok || n != rid(n1) || rkey != syntax.RecordKey(rkey1) {
				t.Fatalf("record key of %d, %q is that of %d, %q", n1, rkey1, n, rkey)
			}
		}
		mark := markKey(marksKey(did, syntax.NSID(collection1)), []byte(rkey1))
		same := func(a, b []byte, want int) {
			t.Helper()
			if got := bytes.Compare(a, b); got != want {
				t.Fatalf("%q and %q stand as %d, want %d", a, b, got, want)
			}
		}
		same(recordKey(rid(n1), syntax.RecordKey(rkey1)), recordKey(rid(n2), syntax.RecordKey(rkey2)), cmp.Or(cmp.Compare(n1, n2), cmp.Compare(rkey1, rkey2)))
		same(ridKey(rid(n1)), ridKey(rid(n2)), cmp.Compare(n1, n2))
		same(kv.NumberKey(uint64(n1)), kv.NumberKey(uint64(n2)), cmp.Compare(n1, n2))
		same(mark, markKey(marksKey(did, syntax.NSID(collection2)), []byte(rkey2)), cmp.Or(cmp.Compare(collection1, collection2), cmp.Compare(rkey1, rkey2)))
	})
}

// FuzzKeySplit takes anything apart as a key.
func FuzzKeySplit(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01self"))
	f.Add([]byte("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\x00a.b.c\x00x"))
	f.Fuzz(func(t *testing.T, key []byte) {
		if n, rkey, ok := splitRecordKey(key); ok && !bytes.Equal(recordKey(n, rkey), key) {
			t.Fatalf("record key %q is taken apart into %d, %q", key, n, rkey)
		}
	})
}
