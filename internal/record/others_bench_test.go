package record_test

import (
	"encoding/json"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
)

// BenchmarkOthers does with this package and with others what is done to each record:
// from the JSON of a listing to a block that has the CID it claims, and from a block to
// JSON. docs/dependencies.md has the figures.
func BenchmarkOthers(b *testing.B) {
	value := []byte(benchValue())
	claimed := sum(b, reference(b, string(value)))
	body, err := record.FromJSON(value, claimed.String())
	if err != nil {
		b.Fatal(err)
	}
	prefix := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"in/record", func() error { _, err := record.FromJSON(value, claimed.String()); return err }},
		{"in/atdata", func() error {
			obj, err := atdata.UnmarshalJSON(value)
			if err != nil {
				return err
			}
			block, err := atdata.MarshalCBOR(obj)
			if err != nil {
				return err
			}
			if got, err := prefix.Sum(block); err != nil || !got.Equals(claimed) {
				b.Fatalf("%s, %v", got, err)
			}
			return nil
		}},
		{"out/record", func() error { _, err := body.JSON(); return err }},
		{"out/atdata", func() error {
			obj, err := atdata.UnmarshalCBOR(body.Data)
			if err != nil {
				return err
			}
			_, err = json.Marshal(obj)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
