package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
)

// maxKeyName is the longest name of a key, in characters.
const maxKeyName = 100

func newKeyBody(k admin.APIKey, now time.Time) api.Key {
	b := api.Key{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, Permissions: k.Permissions, State: api.KeyUsable, CreatedAt: api.Stamp(k.CreatedAt),
		ExpiresAt:  api.Known(api.Stamp(k.ExpiresAt), !k.ExpiresAt.IsZero()),
		LastUsedAt: api.Known(api.Stamp(k.LastUsedAt), !k.LastUsedAt.IsZero()),
		RevokedAt:  api.Known(api.Stamp(k.RevokedAt), !k.RevokedAt.IsZero()),
	}
	switch {
	case !k.RevokedAt.IsZero():
		b.State = api.KeyRevoked
	case !k.Usable(now):
		b.State = api.KeyExpired
	}
	return b
}

func (s *Server) listKeys(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	list, err := s.cfg.Store.Admin.APIKeys(r.Context())
	if err != nil {
		return reply{}, err
	}
	body := api.Keys{Keys: make([]api.Key, len(list)), EnvironmentKey: s.cfg.AdminKey != ""}
	for i, k := range list {
		body.Keys[i] = newKeyBody(k, s.cfg.Now())
	}
	return ok(body), nil
}

// createKey makes a key, which is shown in this answer and never again.
func (s *Server) createKey(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, badRequest("%s: the key is described in the body", err)
	}
	var name, expires string
	var permissions []string
	if err := decodeBody(r.Body, member{"name", &name}, member{"permissions", &permissions}, member{"expires_at", &expires}); err != nil {
		return reply{}, err
	}
	now := s.cfg.Now().UTC().Truncate(time.Second)
	k, err := parseKey(name, permissions, expires, now)
	if err != nil {
		return reply{}, err
	}
	held, _ := r.Context().Value(grantOf{}).(grant) // holds nothing where there is none
	for _, p := range k.Permissions {
		if !held.allows(api.Permission(p)) {
			return reply{}, failure{
				status: http.StatusForbidden,
				text:   fmt.Sprintf("a key can grant only what it holds itself, and this one lacks %s", p),
			}
		}
	}
	if k.ID, err = uuid.NewRandom(); err != nil {
		return reply{}, fmt.Errorf("make api key: %w", err)
	}
	key := NewKey()
	k.Prefix = Prefix(key)
	if err := s.cfg.Store.Admin.PutAPIKey(detached(r), key, k); err != nil { //nolint:contextcheck // a client that goes away does not leave it in doubt
		if errors.Is(err, store.ErrTooMany) {
			err = fmt.Errorf("%w: revoke keys that nobody needs", err)
		}
		return reply{}, err
	}
	s.log.InfoContext(r.Context(), "key made", "key", k.ID, "name", k.Name, "permissions", k.Permissions)
	body := newKeyBody(k, now)
	body.Key = key
	return reply{status: http.StatusCreated, body: body}, nil
}

// parseKey reads what a new key is to be.
func parseKey(name string, permissions []string, expires string, now time.Time) (k admin.APIKey, err error) {
	k = admin.APIKey{Name: strings.TrimSpace(name), CreatedAt: now}
	switch {
	case k.Name == "":
		return k, badRequest("name the key in name: it is how you will know whose it is")
	case utf8.RuneCountInString(k.Name) > maxKeyName:
		return k, badRequest("name has %d characters, at most %d are allowed", utf8.RuneCountInString(k.Name), maxKeyName)
	case strings.ContainsFunc(k.Name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return k, badRequest("name %s holds a character that cannot be shown", quoted(k.Name))
	case len(permissions) == 0:
		return k, badRequest("say in permissions what the key may do: %s, or %s for everything", permissionNames(), api.AllPermissions)
	}
	for _, p := range permissions {
		if p != string(api.AllPermissions) && !slices.Contains(api.Permissions(), api.Permission(p)) {
			return k, badRequest("there is no permission %s: there are %s, and %s for everything", quoted(p), permissionNames(), api.AllPermissions)
		}
	}
	k.Permissions = slices.Compact(slices.Sorted(slices.Values(permissions)))
	if expires == "" {
		return k, nil
	}
	if k.ExpiresAt, err = time.Parse(time.RFC3339, expires); err != nil {
		return k, badRequest("expires_at must be a time as in %s, it is %s", api.Stamp(now.AddDate(1, 0, 0)), quoted(expires))
	}
	k.ExpiresAt = k.ExpiresAt.UTC().Truncate(time.Second)
	if !now.Before(k.ExpiresAt) {
		return k, badRequest("expires_at %s is over already: it is %s", quoted(expires), api.Stamp(now))
	}
	return k, nil
}

func permissionNames() string {
	var names []string
	for _, p := range api.Permissions() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// revokeKey makes a key open nothing any more, streams under way included. The last
// one that has every permission goes only where the configuration has another.
func (s *Server) revokeKey(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	text := r.PathValue("id")
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return reply{}, noKey(text)
	}
	if err := decodeBody(r.Body); err != nil {
		return reply{}, err
	}
	err = s.cfg.Store.Admin.RevokeAPIKey(detached(r), id, s.cfg.AdminKey != "") //nolint:contextcheck // a client that goes away does not leave it in doubt
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, noKey(text)
	case errors.Is(err, admin.ErrLastAdmin):
		return reply{}, failure{
			status: http.StatusConflict,
			text: "this is the last usable key that has every permission, and without one nobody could make keys: " +
				"make another first, or stop the server and run appview keys rescue",
		}
	case err != nil:
		return reply{}, err
	}
	s.sessions.revoke(id)
	s.log.InfoContext(r.Context(), "key revoked", "key", id)
	return reply{status: http.StatusNoContent}, nil
}

func noKey(id string) error { return notFound("there is no key %.100s", id) }
