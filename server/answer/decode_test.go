package answer

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"testing"
)

// FuzzDecode compares the strict decoder with encoding/json: what it takes,
// encoding/json takes too and reads the same from it, and every refusal is an
// answer to the client.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", `{"collection":"a.b.c"}`, `{"did":null}`, `{"did":"x","did":"y"}`, `{"DID":"x"}`, `{} {}`, `{"collection":"\ud800"}`,
		`{"collection":"a","did":"b"}`, `{"a":{"b":[1,2]}}`, "\xef\xbb\xbf{}", `{"did":"a",}`, `{"did" "a"}`, "[", `{"collection":{"did":"a"}}`,
		`{"dids":["a","b"]}`, `{"dids":[]}`, `{"dids":[null]}`, `{"dids":["a",["b"]]}`, `{"dids":"a"}`, `{"did":"a","dids":["\ud800"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var collection, did string
		var dids []string
		err := decodeObject(body, []Member{Optional("collection", &collection), Optional("did", &did), Optional("dids", &dids)})
		if err != nil {
			var fail Failure
			if !errors.As(err, &fail) || fail.Status != 400 || fail.Text == "" {
				t.Fatalf("%q is refused with %v", body, err)
			}
			return
		}
		if len(bytes.Trim(body, JSONSpace)) == 0 {
			return
		}
		var loose map[string]any
		if err := json.Unmarshal(body, &loose); err != nil || loose == nil {
			t.Fatalf("%q is taken, encoding/json says %v", body, err)
		}
		strict := map[string]any{}
		if collection != "" {
			strict["collection"] = collection
		}
		if did != "" {
			strict["did"] = did
		}
		if dids != nil {
			list := make([]any, len(dids))
			for i, one := range dids {
				list[i] = one
			}
			strict["dids"] = list
		}
		maps.DeleteFunc(loose, func(_ string, value any) bool { return value == nil })
		if !reflect.DeepEqual(strict, loose) {
			t.Fatalf("%q: read %v, want %v", body, strict, loose)
		}
	})
}
