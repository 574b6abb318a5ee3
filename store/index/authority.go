package index

import (
	"bytes"
	"math"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// Misspelt reports whether a collection is named as none may be: the authority of an NSID,
// all but its last segment, is in lower case.
func Misspelt(c syntax.NSID) bool { return c.Normalize() != c }

// purgeMisspelt has all records of misspelt collections deleted.
func purgeMisspelt(tx *kv.Tx) error {
	names, err := MisspeltKeys(tx.Bucket([]byte(recordsBucket)))
	if err != nil {
		return err
	}
	b := purges.Bucket(tx)
	for _, name := range names {
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		if err := purges.Put(b, kv.NumberKey(n), purgeRow{Filter: Filter{Collection: syntax.NSID(name)}, Seq: math.MaxUint64}); err != nil {
			return err
		}
	}
	return nil
}

// MisspeltKeys are the keys of a bucket, each the name of a collection, that are misspelt.
func MisspeltKeys(b *kv.Bucket) (names [][]byte, err error) {
	err = b.ForEach(func(k, _ []byte) error {
		if Misspelt(syntax.NSID(k)) {
			names = append(names, bytes.Clone(k))
		}
		return nil
	})
	return names, err
}
