package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// APIKey is a key to the admin API. The key itself is not kept, only its hash.
type APIKey struct {
	ID          uuid.UUID `json:"id"`
	Name        string    `json:"name"`
	Prefix      string    `json:"prefix"` // the first characters, to recognise it by
	Permissions []string  `json:"permissions"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
}

// Usable tells whether the key opens anything now.
func (k APIKey) Usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

var apiKeys = table[APIKey]{name: "keys", version: 1, fill: fillSpread}

// PutAPIKey stores a key under the hash of its secret.
func (s *Store) PutAPIKey(ctx context.Context, secret string, k APIKey) error {
	hash := sha256.Sum256([]byte(secret))
	return s.do(ctx, "store api key", func(g *group) error {
		return apiKeys.put(apiKeys.bucket(g.tx), hash[:], k)
	})
}

// APIKey returns the key with the given secret, or ErrNotFound.
func (s *Store) APIKey(ctx context.Context, secret string) (k APIKey, err error) {
	hash := sha256.Sum256([]byte(secret))
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		k, err = apiKeys.get(apiKeys.bucket(tx), hash[:])
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("api key: %w", ErrNotFound) // without the hash
		}
		return err
	})
	return k, err
}

// APIKeys returns all keys.
func (s *Store) APIKeys(ctx context.Context) (list []APIKey, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return apiKeys.bucket(tx).ForEach(func(_, row []byte) error {
			k, err := apiKeys.decode(row)
			list = append(list, k)
			return err
		})
	})
	return list, err
}
