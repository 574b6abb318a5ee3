package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// AllPermissions is the permission of an admin key: everything, also what later
// versions add.
const AllPermissions = "*"

// maxAPIKeys bounds the keys that are kept. When there are as many, the one that
// has opened nothing for the longest time makes room.
const maxAPIKeys = 1_000

// reservedKeys is how many more there may be of admin keys: whoever fills the list
// must not keep a start, or a rescue, from making one.
const reservedKeys = 100

var (
	// ErrLastAdmin says that a key is the last usable one that has every permission.
	ErrLastAdmin = errors.New("it is the last usable key that has every permission")
	// ErrTooMany says that there are as many as there may be.
	ErrTooMany = errors.New("that is as many as there may be")
	// ErrExists says that there is one already.
	ErrExists = errors.New("it is there already")
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
	LastUsedAt  time.Time `json:"last_used_at,omitzero"`
}

// Usable tells whether the key opens anything now.
func (k APIKey) Usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// Admin tells whether the key has every permission.
func (k APIKey) Admin() bool { return slices.Contains(k.Permissions, AllPermissions) }

// String says in words what the key is for.
func (k APIKey) String() string {
	text := fmt.Sprintf("%s (%s…): %s", k.Name, k.Prefix, strings.Join(k.Permissions, ", "))
	if !k.ExpiresAt.IsZero() {
		text += ", until " + k.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return text
}

// closedAt is when an unusable key has ceased to open anything.
func (k APIKey) closedAt() time.Time {
	if k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(k.RevokedAt) {
		return k.ExpiresAt
	}
	return k.RevokedAt
}

var apiKeys = table[APIKey]{name: "keys", version: 1, fill: fillSpread}

// storedKey is a key and the hash of its secret.
type storedKey struct {
	hash []byte
	APIKey
}

func storedKeys(tx *bbolt.Tx) (list []storedKey, err error) {
	err = apiKeys.bucket(tx).ForEach(func(hash, row []byte) error {
		k, err := apiKeys.decode(hash, row)
		list = append(list, storedKey{bytes.Clone(hash), k})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("api keys: %w", err)
	}
	return list, nil
}

// PutAPIKey stores a new key under the hash of its secret. It fails with ErrExists
// if that was a key before, and with ErrTooMany if there are too many usable keys.
func (s *Store) PutAPIKey(ctx context.Context, secret string, k APIKey) error {
	hash := sha256.Sum256([]byte(secret))
	return s.do(ctx, "store api key", func(g *group) error {
		list, err := storedKeys(g.tx)
		if err != nil {
			return err
		}
		b := apiKeys.bucket(g.tx)
		if b.Get(hash[:]) != nil {
			return refuse(fmt.Errorf("api key %s: %w", k.Name, ErrExists))
		}
		most := maxAPIKeys
		if k.Admin() {
			most += reservedKeys
		}
		if len(list) >= most {
			unusable := slices.DeleteFunc(slices.Clone(list), func(k storedKey) bool { return k.Usable(g.now) })
			if len(unusable) == 0 {
				return refuse(fmt.Errorf("%d api keys are usable: %w", len(list), ErrTooMany))
			}
			first := slices.MinFunc(unusable, func(a, b storedKey) int { return a.closedAt().Compare(b.closedAt()) })
			if err := b.Delete(first.hash); err != nil {
				return fmt.Errorf("delete api key: %w", err)
			}
		}
		if err := apiKeys.put(b, hash[:], k); err != nil {
			return err
		}
		return g.note(ctx, Event{Action: ActCreateKey, Target: k.ID.String(), Detail: k.String()})
	})
}

// RevokeAPIKey makes a key open nothing any more. Revoking it again changes
// nothing. It fails with ErrNotFound if there is none of this id, and, unless that
// is meant, with ErrLastAdmin if no usable key with every permission would be left.
func (s *Store) RevokeAPIKey(ctx context.Context, id uuid.UUID, lastToo bool) error {
	return s.do(ctx, "revoke api key", func(g *group) error {
		list, err := storedKeys(g.tx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(k storedKey) bool { return k.ID == id })
		if i < 0 {
			return refuse(fmt.Errorf("api key %s: %w", id, ErrNotFound))
		}
		k := list[i]
		if !k.RevokedAt.IsZero() {
			return nil
		}
		opens := func(k storedKey) bool { return k.Admin() && k.Usable(g.now) }
		if !lastToo && opens(k) && !slices.ContainsFunc(slices.Delete(list, i, i+1), opens) {
			return refuse(fmt.Errorf("api key %s: %w", id, ErrLastAdmin))
		}
		k.RevokedAt = g.now
		if err := apiKeys.put(apiKeys.bucket(g.tx), k.hash, k.APIKey); err != nil {
			return err
		}
		return g.note(ctx, Event{Action: ActRevokeKey, Target: k.ID.String(), Detail: k.String()})
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

// APIKeys returns all keys, the newest first.
func (s *Store) APIKeys(ctx context.Context) (list []APIKey, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		stored, err := storedKeys(tx)
		for _, k := range stored {
			k.LastUsedAt = s.uses.latest(k.APIKey)
			list = append(list, k.APIKey)
		}
		return err
	})
	slices.SortFunc(list, func(a, b APIKey) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return list, err
}
