package record

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestShallow(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		`{}`, `[]`, ` 1 `, `-0.5e+7`, `"a\u00e9\n"`, `null`, `[true,false,null]`, `{"a":{"b":[1,{"c":[]}]},"d":2}`, `[[],{},[{}]]`,
		strings.Repeat("[", maxShallow) + strings.Repeat("]", maxShallow),
	} {
		if !IsShallow([]byte(good)) {
			t.Errorf("%.60s refused", good)
		}
	}
	for _, bad := range []string{
		``, ` `, `{`, `}`, `[`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,]`, `[1 2]`, `{"a":1 "b":2}`, `{1:2}`, `{]`, `[}`, `[1}`, `{"a":1]`, `1 2`, `01`, `+1`, `.5`, `1.`, `1e`, `-`, `tru`,
		`"a`, `"\x"`, `"\u12"`, `"\u00g0"`, "\"\n\"", `"\`, `nul`, "\x00",
		strings.Repeat("[", maxShallow+1) + strings.Repeat("]", maxShallow+1), strings.Repeat(`{"a":`, 1_000_000),
	} {
		if IsShallow([]byte(bad)) {
			t.Errorf("%.60s taken", bad)
		}
	}
}

// FuzzScan checks that the tokenizer takes exactly what the standard library takes, depth
// aside, and returns values as they stand.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"records":[{"uri":"at://a/b/c","cid":"x","value":{"a":[1,-2.5e3,null,true,"\u00e9"]}}],"cursor":"c"}`,
		`{"a":"\ud83d\ude00\ud83d","b\/":"\"\\\b\f\n\r\t"}`, `[[{"a":[{}]}]]`, `{"a":1,}`, "\"\xff\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, want := IsShallow(body), json.Valid(body); got != want && (got || len(body) <= maxShallow) {
			t.Fatalf("%q: took %v, the standard library %v", body, got, want)
		}
		texts := map[string]string{}
		err := ScanObject(body, func(s *Scanner, key string) error {
			if s.Peek() != '"' {
				return s.Skip()
			}
			text, err := s.Text()
			texts[key] = text
			return err
		})
		var want map[string]any
		if err != nil || !utf8.Valid(body) || json.Unmarshal(body, &want) != nil {
			return
		}
		for key, text := range texts {
			if other, is := want[key].(string); is && other != text {
				t.Fatalf("%q: %q is %q, to the standard library %q", body, key, text, other)
			}
		}
	})
}
