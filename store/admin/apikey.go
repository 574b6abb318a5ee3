package admin

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

	"appview/internal/api"
	"appview/store/kv"
)

// maxAPIKeys bounds the keys that are kept. When there are as many, the one that
// has opened nothing for the longest time makes room.
const maxAPIKeys = 1_000

// reservedKeys is how many more there may be of admin keys: whoever fills the list
// must not keep a start, or a rescue, from making one.
const reservedKeys = 100

// ErrLastAdmin says that a key is the last usable one that has every permission.
var ErrLastAdmin = errors.New("it is the last usable key that has every permission")

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

// Usable reports whether the key opens anything now.
func (k APIKey) Usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// Admin reports whether the key has every permission.
func (k APIKey) Admin() bool { return slices.Contains(k.Permissions, string(api.AllPermissions)) }

// String says in words what the key is for.
func (k APIKey) String() string {
	text := fmt.Sprintf("%s (%s…): %s", k.Name, k.Prefix, strings.Join(k.Permissions, ", "))
	if !k.ExpiresAt.IsZero() {
		text += ", until " + k.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return text
}

// inactiveSince is when an unusable key has ceased to open anything.
func (k APIKey) inactiveSince() time.Time {
	if k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(k.RevokedAt) {
		return k.ExpiresAt
	}
	return k.RevokedAt
}

var apiKeys = kv.Table[APIKey]{Name: "keys", Version: 1, Fill: kv.FillSpread}

// storedKey is a key and the hash of its secret.
type storedKey struct {
	hash []byte
	APIKey
}

func storedKeys(tx *kv.Tx) (list []storedKey, err error) {
	err = apiKeys.Bucket(tx).ForEach(func(hash, row []byte) error {
		k, err := apiKeys.Decode(hash, row)
		list = append(list, storedKey{bytes.Clone(hash), k})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("api keys: %w", err)
	}
	return list, nil
}

// PutAPIKey stores a new key under the hash of its secret. It fails with kv.ErrExists
// if that was a key before, and with kv.ErrTooMany if there are too many usable keys.
func (a *Admin) PutAPIKey(ctx context.Context, secret string, k APIKey) error {
	hash := sha256.Sum256([]byte(secret))
	return a.do(ctx, "store api key", func(tx *kv.Tx) error {
		list, err := storedKeys(tx)
		if err != nil {
			return err
		}
		b := apiKeys.Bucket(tx)
		if b.Get(hash[:]) != nil {
			return kv.Refuse(fmt.Errorf("api key %s: %w", k.Name, kv.ErrExists))
		}
		most := maxAPIKeys
		if k.Admin() {
			most += reservedKeys
		}
		if len(list) >= most {
			unusable := slices.DeleteFunc(slices.Clone(list), func(k storedKey) bool { return k.Usable(tx.Now) })
			if len(unusable) == 0 {
				return kv.Refuse(fmt.Errorf("%d api keys are usable: %w", len(list), kv.ErrTooMany))
			}
			first := slices.MinFunc(unusable, func(a, b storedKey) int { return a.inactiveSince().Compare(b.inactiveSince()) })
			if err := b.Delete(first.hash); err != nil {
				return fmt.Errorf("delete api key: %w", err)
			}
		}
		if err := apiKeys.Put(b, hash[:], k); err != nil {
			return err
		}
		return Note(ctx, tx, Event{Action: api.ActCreateKey, Target: k.ID.String(), Detail: k.String()})
	})
}

// RevokeAPIKey makes a key open nothing any more. Revoking it again changes
// nothing. It fails with kv.ErrNotFound if there is none of this id, and, unless that
// is meant, with ErrLastAdmin if no usable key with every permission would be left.
func (a *Admin) RevokeAPIKey(ctx context.Context, id uuid.UUID, allowLast bool) error {
	return a.do(ctx, "revoke api key", func(tx *kv.Tx) error {
		list, err := storedKeys(tx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(k storedKey) bool { return k.ID == id })
		if i < 0 {
			return kv.Refuse(fmt.Errorf("api key %s: %w", id, kv.ErrNotFound))
		}
		k := list[i]
		if !k.RevokedAt.IsZero() {
			return nil
		}
		opens := func(k storedKey) bool { return k.Admin() && k.Usable(tx.Now) }
		if !allowLast && opens(k) && !slices.ContainsFunc(slices.Delete(list, i, i+1), opens) {
			return kv.Refuse(fmt.Errorf("api key %s: %w", id, ErrLastAdmin))
		}
		k.RevokedAt = tx.Now
		if err := apiKeys.Put(apiKeys.Bucket(tx), k.hash, k.APIKey); err != nil {
			return err
		}
		return Note(ctx, tx, Event{Action: api.ActRevokeKey, Target: k.ID.String(), Detail: k.String()})
	})
}

// APIKey returns the key with the given secret, or kv.ErrNotFound.
func (a *Admin) APIKey(ctx context.Context, secret string) (APIKey, error) {
	hash := sha256.Sum256([]byte(secret))
	return kv.Read(ctx, a.db, func(tx *kv.Tx) (APIKey, error) {
		k, err := apiKeys.Get(apiKeys.Bucket(tx), hash[:])
		if errors.Is(err, kv.ErrNotFound) {
			err = fmt.Errorf("api key: %w", kv.ErrNotFound) // without the hash
		}
		return k, err
	})
}

// APIKeys returns all keys, the newest first.
func (a *Admin) APIKeys(ctx context.Context) (list []APIKey, err error) {
	stored, err := kv.Read(ctx, a.db, storedKeys)
	for _, k := range stored {
		k.LastUsedAt = a.uses.latest(k.APIKey)
		list = append(list, k.APIKey)
	}
	slices.SortFunc(list, func(a, b APIKey) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return list, err
}
