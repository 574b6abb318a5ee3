package record_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"

	"appview/internal/record"
	"appview/internal/sandbox/sandboxtest/interop"
)

// sameJSON reports whether two values say the same.
func sameJSON(tb testing.TB, a, b []byte) bool {
	tb.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		tb.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestInteropDataModel(t *testing.T) {
	t.Parallel()
	var fixtures []struct {
		JSON       json.RawMessage
		CBORBase64 string `json:"cbor_base64"`
		CID        string
	}
	interop.JSON(t, "data/data-model-fixtures.json", &fixtures)
	for _, f := range fixtures {
		block, err := base64.RawStdEncoding.DecodeString(f.CBORBase64)
		if err != nil {
			t.Fatal(err)
		}
		id, err := cid.Decode(f.CID)
		if err != nil {
			t.Fatal(err)
		}
		listed, err := record.FromJSON(f.JSON, f.CID)
		if err != nil || !listed.Verified || !bytes.Equal(listed.Data, block) {
			t.Errorf("%s listed: verified %t as %x, %v", id, listed.Verified, listed.Data, err)
		}
		whole, err := record.FromCBOR(block, id)
		if err != nil || !whole.Verified {
			t.Errorf("%s as a block: verified %t, %v", id, whole.Verified, err)
		}
		if printed, err := whole.JSON(); err != nil || !sameJSON(t, printed, f.JSON) {
			t.Errorf("%s printed as %s, %v", id, printed, err)
		}
	}
	for _, name := range []string{"data/feedpost_record.cbor", "data/post_richtext_link.cbor"} {
		block := interop.File(t, name)
		body, err := record.FromCBOR(block, sum(t, block))
		if err != nil || !body.Verified {
			t.Errorf("%s: verified %t, %v", name, body.Verified, err)
			continue
		}
		printed, err := body.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := record.FromJSON(printed, body.CID.String()); err != nil || !again.Verified {
			t.Errorf("%s printed: verified %t, %v", name, again.Verified, err)
		}
	}
}

// TestInteropValues has hosts list the values of the fixtures, each with the CID that the
// reference implementation gives it, or would: a valid one is taken, an invalid one is
// not, if it is not among the disagreements.
func TestInteropValues(t *testing.T) {
	t.Parallel()
	for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
		var fixtures []struct {
			Note string
			JSON json.RawMessage
		}
		interop.JSON(t, "data/data-model-"+spelling+".json", &fixtures)
		for _, f := range fixtures {
			claimed := sum(t, []byte("what the host hashed"))
			if valid {
				claimed = sum(t, reference(t, string(f.JSON)))
			}
			body, err := record.FromJSON(f.JSON, claimed.String())
			if (err == nil) != valid && !interop.Disagrees("data-model", f.Note) || body.Verified != valid {
				t.Errorf("%s: verified %t, %v", f.Note, body.Verified, err)
			}
		}
	}
}

// TestInteropURIs reads the AT-URIs of the fixtures as addresses of records.
func TestInteropURIs(t *testing.T) {
	t.Parallel()
	for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
		for _, line := range interop.Lines(t, "syntax/aturi_syntax_"+spelling+".txt") {
			if _, err := record.ParseURI(line); (err == nil) != valid && !interop.Disagrees("aturi", line) {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

// TestInteropCIDs has hosts list a record under each CID of the fixtures.
func TestInteropCIDs(t *testing.T) {
	t.Parallel()
	for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
		for _, line := range interop.Lines(t, "syntax/cid_syntax_"+spelling+".txt") {
			_, err := record.FromJSON([]byte(`{"a":1.5}`), line)
			if (err == nil) != valid && !interop.Disagrees("cid of a record", line) {
				t.Errorf("%s %q: %v", spelling, line, err)
			}
		}
	}
}
