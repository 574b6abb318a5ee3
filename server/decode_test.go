package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

// FuzzDecode compares the strict decoder with encoding/json: what it takes,
// encoding/json takes too and reads the same from it, and every refusal is an
// answer to the client.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", `{"collection":"a.b.c"}`, `{"did":null}`, `{"did":"x","did":"y"}`, `{"DID":"x"}`, `{} {}`, `{"collection":"\ud800"}`,
		`{"collection":"a","did":"b"}`, `{"a":{"b":[1,2]}}`, "\xef\xbb\xbf{}", `{"did":"a",}`, `{"did" "a"}`, "[", `{"collection":{"did":"a"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var collection, did string
		err := decodeObject(body, []member{{"collection", &collection}, {"did", &did}})
		if err != nil {
			var fail failure
			if !errors.As(err, &fail) || fail.status != 400 || fail.text == "" {
				t.Fatalf("%q is refused with %v", body, err)
			}
			return
		}
		if len(bytes.Trim(body, jsonSpace)) == 0 {
			return
		}
		var loose map[string]*string
		if err := json.Unmarshal(body, &loose); err != nil || loose == nil {
			t.Fatalf("%q is taken, encoding/json says %v", body, err)
		}
		for name, value := range loose {
			want := ""
			if value != nil {
				want = *value
			}
			switch {
			case name == "collection" && collection == want:
			case name == "did" && did == want:
			default:
				t.Fatalf("%q: %s is %q, read %q and %q", body, name, want, collection, did)
			}
		}
	})
}
