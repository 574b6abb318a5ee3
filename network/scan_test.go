package network

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestShallow(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		`{}`, `[]`, ` 1 `, `-0.5e+7`, `"a\u00e9\n"`, `null`, `[true,false,null]`, `{"a":{"b":[1,{"c":[]}]},"d":2}`, `[[],{},[{}]]`,
		repeat("[", maxDepth) + repeat("]", maxDepth),
	} {
		if !shallow([]byte(good)) {
			t.Errorf("%.60s refused", good)
		}
	}
	for _, bad := range []string{
		``, ` `, `{`, `}`, `[`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,]`, `[1 2]`, `{"a":1 "b":2}`, `{1:2}`, `{]`, `[}`, `[1}`, `{"a":1]`, `1 2`, `01`, `+1`, `.5`, `1.`, `1e`, `-`, `tru`,
		`"a`, `"\x"`, `"\u12"`, `"\u00g0"`, "\"\n\"", `"\`, `nul`, "\x00",
		repeat("[", maxDepth+1) + repeat("]", maxDepth+1), repeat(`{"a":`, 1_000_000),
	} {
		if shallow([]byte(bad)) {
			t.Errorf("%.60s taken", bad)
		}
	}
}

// FuzzScan checks that the scanner takes exactly what the standard library
// takes, depth aside, and that no page makes the readers panic.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"records":[{"uri":"at://a/b/c","cid":"x","value":{"a":[1,-2.5e3,null,true,"\u00e9"]}}],"cursor":"c"}`,
		`{"repos":[{"did":"did:plc:abc"}],"cursor":null}`, `{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","collections":["a.b.c"]}`, `[[{"a":[{}]}]]`, `{"a":1,}`, "\"\xff\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, want := shallow(body), json.Valid(body); got != want && (got || len(body) <= maxDepth) {
			t.Fatalf("%q: took %v, the standard library %v", body, got, want)
		}
		records, err := readRecords(body)
		if err == nil {
			for _, r := range records.Records {
				if r.Value != nil && !json.Valid(r.Value) {
					t.Fatalf("%q: value %q is no json", body, r.Value)
				}
			}
			if utf8.Valid(body) && !utf8.ValidString(records.Cursor) {
				t.Fatalf("%q: cursor %q", body, records.Cursor)
			}
		}
		if repos, err := readRepos(body); err == nil && !json.Valid(body) {
			t.Fatalf("%q read as %v", body, repos)
		}
		_, _ = readDescription(body, alice) // must only not panic
	})
}
