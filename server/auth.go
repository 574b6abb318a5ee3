package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"appview/store"
)

// Permission is something that a key may allow.
type Permission string

// The permissions. Stored with keys: never renamed.
const (
	AllPermissions Permission = "*"
	BackfillCreate Permission = "backfill:create"
	BackfillRead   Permission = "backfill:read"
	RecordsRead    Permission = "records:read"
	RecordsDelete  Permission = "records:delete"
	StatsRead      Permission = "stats:read"
	DenylistManage Permission = "denylist:manage"
)

const (
	// KeyPrefix begins every key.
	KeyPrefix = "hv_"
	// minAdminKey is the shortest configured key: one shorter could be guessed.
	minAdminKey = 24
	// maxKey is longer than any key that was ever made or configured.
	maxKey = 512
)

// CheckKey tells why key cannot be a configured admin key.
func CheckKey(key string) error {
	switch {
	case !strings.HasPrefix(key, KeyPrefix):
		return fmt.Errorf("the admin key must begin with %s", KeyPrefix)
	case len(key) < minAdminKey:
		return fmt.Errorf("the admin key has %d characters, it needs at least %d", len(key), minAdminKey)
	case !wellFormed(key):
		return fmt.Errorf("the admin key must be at most %d printable ASCII characters without spaces", maxKey)
	}
	return nil
}

// wellFormed tells whether key could be one at all.
func wellFormed(key string) bool {
	if !strings.HasPrefix(key, KeyPrefix) || len(key) > maxKey {
		return false
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// grant is what the key of a request allows.
type grant struct {
	permissions []string
}

func (g grant) allows(p Permission) bool {
	return slices.Contains(g.permissions, string(p)) || slices.Contains(g.permissions, string(AllPermissions))
}

// authenticate finds the key that the request carries. It reads nothing of the
// request but its header.
func (s *Server) authenticate(r *http.Request) (grant, error) {
	key, err := bearer(r)
	if err != nil {
		return grant{}, err
	}
	if s.cfg.AdminKey != "" && sameKey(key, s.cfg.AdminKey) {
		return grant{permissions: []string{string(AllPermissions)}}, nil
	}
	k, err := s.cfg.Store.APIKey(r.Context(), key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return grant{}, unauthorized("the key is not known here")
	case err != nil:
		return grant{}, err
	case !k.RevokedAt.IsZero():
		return grant{}, unauthorized("the key was revoked")
	case !k.Usable(s.cfg.Now()):
		return grant{}, unauthorized("the key has expired")
	}
	return grant{permissions: k.Permissions}, nil
}

// sameKey compares in constant time. The hashes give both the same length.
func sameKey(a, b string) bool {
	ha, hb := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(ha[:], hb[:]) == 1
}

// bearer is the key in the Authorization header.
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	switch len(values) {
	case 0:
		return "", unauthorized("no key was sent")
	case 1:
	default:
		return "", unauthorized("more than one Authorization header was sent")
	}
	scheme, key, _ := strings.Cut(values[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return "", unauthorized("the Authorization header is not of the Bearer scheme")
	case !strings.HasPrefix(key, KeyPrefix):
		return "", unauthorized("a key begins with " + KeyPrefix)
	case !wellFormed(key):
		return "", unauthorized("the key holds a space or another character that no key has")
	}
	return key, nil
}

func unauthorized(why string) error {
	f := failure{status: http.StatusUnauthorized, text: why + ": send the header `Authorization: Bearer " + KeyPrefix + "…`"}
	f.header("WWW-Authenticate", "Bearer")
	return f
}

func forbidden(p Permission) error {
	return failure{status: http.StatusForbidden, text: fmt.Sprintf("the key lacks the permission %s", p)}
}
