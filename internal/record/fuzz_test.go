package record_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"appview/internal/record"
)

// FuzzFromJSON checks that every input ends in a body or an error, that a value
// is kept only if it is JSON, and that what is verified is verified again after
// it was printed, with the bytes that the network's own library makes of it.
func FuzzFromJSON(f *testing.F) {
	for _, value := range plainValues() {
		if len(value) < 1000 {
			f.Add([]byte(value))
		}
	}
	f.Add([]byte(`{"a":1.0,"b":{"cid":"x","mimeType":"y"},"c":{"$bytes":"AQ=="},"d":"\ud800"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		unknown := sum(t, []byte("unknown"))
		if body, err := record.FromJSON(value, unknown.String()); err == nil {
			if body.Verified || !json.Valid(body.Data) {
				t.Fatalf("kept %q, verified %v", body.Data, body.Verified)
			}
		}
		obj, err := atdata.UnmarshalJSON(value)
		if err != nil {
			return
		}
		block, err := atdata.MarshalCBOR(obj)
		if err != nil {
			return
		}
		body, err := record.FromJSON(value, sum(t, block).String())
		if err != nil || !body.Verified {
			return // the reference takes more than can be known for certain
		}
		if !bytes.Equal(body.Data, block) {
			t.Fatalf("%q: verified as %x, reference %x", value, body.Data, block)
		}
		printed, err := body.JSON()
		if err != nil {
			t.Fatalf("%q: print: %v", value, err)
		}
		if again, err := record.FromJSON(printed, body.CID.String()); err != nil || !again.Verified {
			t.Fatalf("%q printed as %q: verified %v, %v", value, printed, again.Verified, err)
		}
	})
}

// FuzzFromCBOR checks that every block ends in a body or an error, and that a
// verified one comes back from its JSON byte for byte.
func FuzzFromCBOR(f *testing.F) {
	for _, value := range plainValues() {
		if len(value) < 1000 {
			f.Add(reference(f, value))
		}
	}
	f.Add([]byte("\xa1\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, block []byte) {
		body, err := record.FromCBOR(block, sum(t, block))
		if err != nil {
			return
		}
		printed, err := body.JSON()
		if err != nil || !json.Valid(printed) {
			t.Fatalf("%x printed as %q, %v", block, printed, err)
		}
		if !body.Verified {
			return
		}
		again, err := record.FromJSON(printed, body.CID.String())
		if err != nil || !again.Verified || !bytes.Equal(again.Data, block) {
			t.Fatalf("%x printed as %q: verified %v, %v", block, printed, again.Verified, err)
		}
	})
}
