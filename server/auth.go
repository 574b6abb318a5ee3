package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"appview/internal/api"
	"appview/server/answer"
	"appview/server/apikey"
	"appview/store"
	"appview/store/admin"
)

// grant is what the key of a request allows.
type grant struct {
	permissions []string
	actor       admin.Actor // in whose name it acts
	expires     time.Time   // zero: never
	revoked     uint64      // how many keys had been when it was looked up
}

// grantOf is the key under which the context of a request holds its grant.
type grantOf struct{}

// allows reports whether the key of a request holds a permission.
func allows(r *http.Request, p api.Permission) bool {
	held, _ := r.Context().Value(grantOf{}).(grant) // holds nothing where there is none
	return held.allows(p)
}

func (g grant) allows(p api.Permission) bool {
	return slices.Contains(g.permissions, string(p)) || slices.Contains(g.permissions, string(api.AllPermissions))
}

// identify finds the key that the request carries, and notes on its connection that it
// has one. The refusal of a wrong key may be kept back.
func (s *Server) identify(r *http.Request) (grant, error) {
	held, err := s.authenticate(r)
	if err != nil {
		s.refusals.note(r, err)
		return grant{}, s.slowGuess(r, err)
	}
	markKeyed(r)
	return held, nil
}

// authenticate finds the key that the request carries. It reads nothing of the
// request but its header.
func (s *Server) authenticate(r *http.Request) (grant, error) {
	key, err := bearer(r)
	if err != nil {
		return grant{}, err
	}
	if s.cfg.AdminKey != "" && sameKey(key, s.cfg.AdminKey) {
		return grant{permissions: []string{string(api.AllPermissions)}, actor: admin.Actor{Kind: api.ActorEnvironment}}, nil
	}
	revoked := s.sessions.count()
	k, err := s.cfg.Store.Admin.APIKey(r.Context(), key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return grant{}, unknownKey()
	case err != nil:
		return grant{}, err
	case !k.RevokedAt.IsZero():
		return grant{}, errKeyRevoked(k)
	case !k.Usable(s.cfg.Now()):
		return grant{}, errKeyExpired(k)
	}
	s.cfg.Store.Admin.UseAPIKey(k.ID, s.cfg.Now())
	actor := admin.Actor{Kind: api.ActorKey, KeyID: k.ID, Prefix: k.Prefix, Name: k.Name}
	return grant{permissions: k.Permissions, actor: actor, expires: k.ExpiresAt, revoked: revoked}, nil
}

func errKeyRevoked(k admin.APIKey) error { return unusable(k, "the key was revoked") }

func errKeyExpired(k admin.APIKey) error { return unusable(k, "the key has expired") }

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
	case !strings.HasPrefix(key, apikey.Begins):
		return "", unauthorized("a key begins with " + apikey.Begins)
	case !apikey.WellFormed(key):
		return "", unauthorized("the key holds a space or another character that no key has")
	}
	return key, nil
}

// keyError is a key that opens nothing.
type keyError struct {
	answer.Failure

	why     string
	key     admin.APIKey // of which it is known that it did once
	guessed bool         // it could be a key, and never was one
}

// Unwrap leads to the answer.
func (e keyError) Unwrap() error { return e.Failure }

func unauthorized(why string) error { return unusable(admin.APIKey{}, why) }

func unknownKey() error {
	e := unusable(admin.APIKey{}, "the key is not known here")
	e.guessed = true
	return e
}

func unusable(k admin.APIKey, why string) keyError {
	f := answer.Failure{Status: http.StatusUnauthorized, Text: why + ": send the header `Authorization: Bearer " + apikey.Begins + "…`"}
	f.Header("WWW-Authenticate", "Bearer")
	return keyError{Failure: f, why: why, key: k}
}

func forbidden(p api.Permission) error {
	return answer.Failure{Status: http.StatusForbidden, Text: fmt.Sprintf("the key lacks the permission %s", p)}
}
