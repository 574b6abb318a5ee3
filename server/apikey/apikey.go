// Package apikey is how API keys look.
package apikey

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	// Begins is what begins every key.
	Begins = "hv_"
	// prefixLen is how much of a key is shown so that it can be recognised.
	prefixLen = 8
	// keyBytes is how much of a key is random.
	keyBytes = 32
	// minAdminKey is the shortest configured key: one shorter could be guessed.
	minAdminKey = 24
	// maxKey is longer than any key that was ever made or configured.
	maxKey = 512
)

// New makes a key up.
func New() string {
	secret := make([]byte, keyBytes)
	_, _ = rand.Read(secret) // never fails
	return Begins + base64.RawURLEncoding.EncodeToString(secret)
}

// Prefix is what is shown of a key.
func Prefix(key string) string { return key[:min(prefixLen, len(key))] }

// Check says why key cannot be a configured admin key.
func Check(key string) error {
	switch {
	case !strings.HasPrefix(key, Begins):
		return fmt.Errorf("the admin key must begin with %s", Begins)
	case len(key) < minAdminKey:
		return fmt.Errorf("the admin key has %d characters, it needs at least %d", len(key), minAdminKey)
	case !WellFormed(key):
		return fmt.Errorf("the admin key must be at most %d printable ASCII characters without spaces", maxKey)
	}
	return nil
}

// WellFormed reports whether key could be one at all.
func WellFormed(key string) bool {
	if !strings.HasPrefix(key, Begins) || len(key) > maxKey {
		return false
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
