package network

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/multiformats/go-multibase"
)

const (
	suiteMultikey = "Multikey"
	suiteP256     = "EcdsaSecp256r1VerificationKey2019"
	suiteK256     = "EcdsaSecp256k1VerificationKey2019"

	// maxKeyText is more than any spelling of a key takes. Base58 is read in a time
	// that grows with the square of its length.
	maxKeyText = 256
	// bases are the first letters of the spellings that the reference implementation reads.
	bases = "fFbBzmuU"

	compressedKey   = 33
	uncompressedKey = 65
)

// signingKey is a public key as a DID document spells it. It is read when it is
// wanted: that takes as long as the rest of a look-up.
type signingKey struct {
	found bool
	suite string // its type
	text  string // publicKeyMultibase
}

func isSuite(name string) bool {
	return name == suiteMultikey || name == suiteP256 || name == suiteK256
}

// parse reads the key in every form that the reference implementation takes: as a
// Multikey, or in one of the older suites, whose bytes stand without a prefix,
// compressed or not, in one of several bases.
func (k signingKey) parse() (atcrypto.PublicKey, error) {
	switch {
	case !k.found:
		return nil, errors.New("the did document names no key")
	case len(k.text) > maxKeyText:
		return nil, fmt.Errorf("a key of %d characters", len(k.text))
	case k.suite == suiteMultikey:
		return atcrypto.ParsePublicMultibase(k.text)
	case !isSuite(k.suite):
		return nil, fmt.Errorf("a key of the unknown type %.100q", k.suite)
	case k.text == "" || !strings.Contains(bases, k.text[:1]):
		return nil, errors.New("the key is in no known multibase")
	}
	_, data, err := multibase.Decode(k.text)
	if err != nil {
		return nil, fmt.Errorf("multibase of the key: %w", err)
	}
	return parseSuite(k.suite, data)
}

// parseSuite reads the bare bytes of a key.
func parseSuite(suite string, data []byte) (atcrypto.PublicKey, error) {
	switch {
	case len(data) == compressedKey && suite == suiteP256:
		return atcrypto.ParsePublicBytesP256(data)
	case len(data) == compressedKey:
		return atcrypto.ParsePublicBytesK256(data)
	case len(data) == uncompressedKey && suite == suiteP256:
		return atcrypto.ParsePublicUncompressedBytesP256(data)
	case len(data) == uncompressedKey:
		return atcrypto.ParsePublicUncompressedBytesK256(data)
	default:
		return nil, fmt.Errorf("a key of %d bytes, want %d or %d", len(data), compressedKey, uncompressedKey)
	}
}
