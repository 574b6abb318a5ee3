package store

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
	return []kvtest.Decoder{
		decoderOf(collections), decoderOf(denials), decoderOf(freshness), decoderOf(jobs),
		decoderOf(purges), decoderOf(repos), decoderOf(counts), decoderOf(distrusted), decoderOf(pauses), decoderOf(workRepos), decoderOf(owedRows),
		decoderOf(cursors), decoderOf(hostRows), decoderOf(totals), decoderOf(replies),
	}
}

func decoderOf[V any](t table[V]) kvtest.Decoder { return kvtest.DecoderOf(t.kv()) }

// FuzzRows reads anything as a row of every table.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x01{}", "\x02{}", "\x01null", "\x01[]", `\x01{"seq":1}`,
		"\x01{\"attempts\":3,\"not_before\":\"2026-01-02T03:04:05Z\",\"position\":{\"first\":\"3kgk4qs6aa22a\",\"read\":{\"com.example.note\":{\"cursor\":\"x\"}}}}",
		"\x01{\"did\":\"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\",\"state\":\"settled\",\"class\":\"failed\",\"reason\":\"timeout\",\"rev\":\"x\"}",
		"\x01{\"id\":\"00000000-0000-0000-0000-000000000001\",\"status\":\"running\",\"request\":{\"dids\":[\"did:plc:a\"]},\"tally\":{\"records\":-1}}",
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
	f.Add(sealed[:len(sealed)-sealLen])
	f.Add([]byte("\x02"))
	f.Add(bytes.Repeat([]byte{1}, rowCID+1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, raw := range [][]byte{raw, binary.BigEndian.AppendUint32(bytes.Clone(raw), kv.Checksum(key, raw))} {
			var rec Record
			err := readRow(&rec, new(spelling), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "com.example.note", key, raw)
			if err != nil {
				if !errors.Is(err, errRow) {
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
				again = append([]byte{raw[0]}, again[1:len(again)-sealLen]...)
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
	f.Add("did:plc:a", "com.example.note", "self", uint32(1), "did:plc:b", "com.example.notes", "self2", uint32(256))
	f.Add("did:web:a.b", "a.b.c", "~", uint32(0), "did:web:a.b", "a.b.c", "-", uint32(1<<31))
	f.Fuzz(func(t *testing.T, host1, collection1, rkey1 string, n1 uint32, host2, collection2, rkey2 string, n2 uint32) {
		const did = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
		for _, s := range []string{host1, collection1, rkey1, host2, collection2, rkey2} {
			if strings.ContainsAny(s, "\x00\x01") {
				return // no identifier can hold them
			}
		}
		if rkey1 != "" {
			if n, rkey, ok := splitRecordKey(recordKey(rid(n1), syntax.RecordKey(rkey1))); !ok || n != rid(n1) || rkey != syntax.RecordKey(rkey1) {
				t.Fatalf("record key of %d, %q is that of %d, %q", n1, rkey1, n, rkey)
			}
		}
		if host, got, ok := splitOwedKey(owedKey(host1, did)); !ok || host != host1 || got != did {
			t.Fatalf("queue key of %q is that of %q, %q", host1, host, got)
		}
		mark := markKey(marksKey(did, syntax.NSID(collection1)), []byte(rkey1))
		same := func(a, b []byte, want int) {
			t.Helper()
			if got := bytes.Compare(a, b); got != want {
				t.Fatalf("%q and %q stand as %d, want %d", a, b, got, want)
			}
		}
		same(recordKey(rid(n1), syntax.RecordKey(rkey1)), recordKey(rid(n2), syntax.RecordKey(rkey2)), cmp.Or(cmp.Compare(n1, n2), cmp.Compare(rkey1, rkey2)))
		same(owedKey(host1, did), owedKey(host2, did), cmp.Compare(host1, host2))
		same(ridKey(rid(n1)), ridKey(rid(n2)), cmp.Compare(n1, n2))
		same(u64Key(uint64(n1)), u64Key(uint64(n2)), cmp.Compare(n1, n2))
		same(mark, markKey(marksKey(did, syntax.NSID(collection2)), []byte(rkey2)), cmp.Or(cmp.Compare(collection1, collection2), cmp.Compare(rkey1, rkey2)))
		want := cmp.Compare(host2, host1)
		if want == 0 {
			want = -1 // the host's own queue ends there
		}
		same(owedKey(host2, did), afterHost(host1), want)
	})
}

// FuzzKeySplit takes anything apart as a key.
func FuzzKeySplit(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01self"))
	f.Add([]byte("https://a\x00did:plc:a"))
	f.Add([]byte("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\x00a.b.c\x00x"))
	f.Fuzz(func(t *testing.T, key []byte) {
		if n, rkey, ok := splitRecordKey(key); ok && !bytes.Equal(recordKey(n, rkey), key) {
			t.Fatalf("record key %q is taken apart into %d, %q", key, n, rkey)
		}
		if host, did, ok := splitOwedKey(key); ok && !bytes.Equal(owedKey(host, did), key) {
			t.Fatalf("queue key %q is taken apart into %q, %q", key, host, did)
		}
	})
}
