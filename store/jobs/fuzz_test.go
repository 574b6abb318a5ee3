package jobs

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv/kvtest"
)

// decoders are those of every table.
func decoders() []kvtest.Decoder {
	return []kvtest.Decoder{
		kvtest.DecoderOf(collections), kvtest.DecoderOf(freshness), kvtest.DecoderOf(jobs), kvtest.DecoderOf(distrusted),
		kvtest.DecoderOf(pauses), kvtest.DecoderOf(workRepos), kvtest.DecoderOf(owedRows), kvtest.DecoderOf(cursors),
		kvtest.DecoderOf(hostRows), kvtest.DecoderOf(totals), kvtest.DecoderOf(replies),
	}
}

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

// FuzzKeys makes keys of anything: they are taken apart into what they were made
// of, and stand in the order of their parts.
func FuzzKeys(f *testing.F) {
	f.Add("did:plc:a", "did:plc:b")
	f.Add("did:web:a.b", "did:web:a.b")
	f.Fuzz(func(t *testing.T, host1, host2 string) {
		const did = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
		if strings.ContainsAny(host1+host2, "\x00\x01") {
			return // no identifier can hold them
		}
		if host, got, ok := splitOwedKey(owedKey(host1, did)); !ok || host != host1 || got != did {
			t.Fatalf("queue key of %q is that of %q, %q", host1, host, got)
		}
		same := func(a, b []byte, want int) {
			t.Helper()
			if got := bytes.Compare(a, b); got != want {
				t.Fatalf("%q and %q stand as %d, want %d", a, b, got, want)
			}
		}
		same(owedKey(host1, did), owedKey(host2, did), cmp.Compare(host1, host2))
		want := cmp.Compare(host2, host1)
		if want == 0 {
			want = -1 // the host's own queue ends there
		}
		same(owedKey(host2, did), afterHost(host1), want)
	})
}

// FuzzKeySplit takes anything apart as a key.
func FuzzKeySplit(f *testing.F) {
	f.Add([]byte("https://a\x00did:plc:a"))
	f.Add([]byte("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\x00a.b.c\x00x"))
	f.Fuzz(func(t *testing.T, key []byte) {
		if host, did, ok := splitOwedKey(key); ok && !bytes.Equal(owedKey(host, did), key) {
			t.Fatalf("queue key %q is taken apart into %q, %q", key, host, did)
		}
	})
}
