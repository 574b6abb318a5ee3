package sandbox

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// plcIdentifierLen is the length of what follows did:plc:.
const plcIdentifierLen = 24

// keyTries bounds the search for a scalar that lies on the curve; one in 2^32 is
// outside P-256's order.
const keyTries = 8

// derive hashes the seed with what is to be made, so that nothing depends on the
// order in which things are made.
func derive(seed int64, what string, numbers ...int) [sha256.Size]byte {
	b := append([]byte("sandbox/"+what), 0)
	b = binary.BigEndian.AppendUint64(b, uint64(seed))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return sha256.Sum256(b)
}

func deriveDID(seed int64, number int) syntax.DID {
	sum := derive(seed, "did", number)
	id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
	return syntax.DID("did:plc:" + id[:plcIdentifierLen])
}

// deriveKey makes the signing key of an account. Keys of both types that the
// network uses alternate; turn counts how often the account got a new one.
func deriveKey(seed int64, number, turn int) (atcrypto.PrivateKey, error) {
	var err error
	for try := range keyTries {
		sum := derive(seed, "key", number, turn, try)
		if number%2 == 0 {
			var key *atcrypto.PrivateKeyK256
			if key, err = atcrypto.ParsePrivateBytesK256(sum[:]); err == nil {
				return key, nil
			}
			continue
		}
		var key *atcrypto.PrivateKeyP256
		if key, err = atcrypto.ParsePrivateBytesP256(sum[:]); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("derive key %d of account %d: %w", turn, number, err)
}
