package control

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
	"appview/server/answer"
	"appview/server/apikey"
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

func (ctl *Control) listKeys(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	list, err := ctl.cfg.Store.Admin.APIKeys(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	body := api.Keys{Keys: make([]api.Key, len(list)), EnvironmentKey: ctl.cfg.AdminKey != ""}
	for i, k := range list {
		body.Keys[i] = newKeyBody(k, ctl.cfg.Now())
	}
	return answer.OK(body), nil
}

// createKey makes a key, which is shown in this answer and never again.
func (ctl *Control) createKey(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, answer.BadRequest("%s: the key is described in the body", err)
	}
	var name, expires string
	var permissions []string
	if err := answer.DecodeBody(r.Body, answer.Optional("name", &name), answer.Optional("permissions", &permissions), answer.Optional("expires_at", &expires)); err != nil {
		return answer.Reply{}, err
	}
	now := ctl.cfg.Now().UTC().Truncate(time.Second)
	k, err := parseKey(name, permissions, expires, now)
	if err != nil {
		return answer.Reply{}, err
	}
	for _, p := range k.Permissions {
		if !ctl.cfg.Allows(r, api.Permission(p)) {
			return answer.Reply{}, answer.Failure{
				Status: http.StatusForbidden,
				Text:   fmt.Sprintf("a key can grant only what it holds itself, and this one lacks %s", p),
			}
		}
	}
	if k.ID, err = uuid.NewRandom(); err != nil {
		return answer.Reply{}, fmt.Errorf("make api key: %w", err)
	}
	key := apikey.New()
	k.Prefix = apikey.Prefix(key)
	if err := ctl.cfg.Store.Admin.PutAPIKey(answer.Detached(r), key, k); err != nil { //nolint:contextcheck // a client that goes away does not leave it in doubt
		if errors.Is(err, store.ErrTooMany) {
			err = fmt.Errorf("%w: revoke keys that nobody needs", err)
		}
		return answer.Reply{}, err
	}
	ctl.cfg.Log.InfoContext(r.Context(), "key made", "key", k.ID, "name", k.Name, "permissions", k.Permissions)
	body := newKeyBody(k, now)
	body.Key = key
	return answer.Reply{Status: http.StatusCreated, Body: body}, nil
}

// parseKey reads what a new key is to be.
func parseKey(name string, permissions []string, expires string, now time.Time) (k admin.APIKey, err error) {
	k = admin.APIKey{Name: strings.TrimSpace(name), CreatedAt: now}
	switch {
	case k.Name == "":
		return k, answer.BadRequest("name the key in name: it is how you will know whose it is")
	case utf8.RuneCountInString(k.Name) > maxKeyName:
		return k, answer.BadRequest("name has %d characters, at most %d are allowed", utf8.RuneCountInString(k.Name), maxKeyName)
	case strings.ContainsFunc(k.Name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return k, answer.BadRequest("name %s holds a character that cannot be shown", answer.Quoted(k.Name))
	case len(permissions) == 0:
		return k, answer.BadRequest("say in permissions what the key may do: %s, or %s for everything", permissionNames(), api.AllPermissions)
	}
	for _, p := range permissions {
		if p != string(api.AllPermissions) && !slices.Contains(api.Permissions(), api.Permission(p)) {
			return k, answer.BadRequest("there is no permission %s: there are %s, and %s for everything", answer.Quoted(p), permissionNames(), api.AllPermissions)
		}
	}
	k.Permissions = slices.Compact(slices.Sorted(slices.Values(permissions)))
	if expires == "" {
		return k, nil
	}
	if k.ExpiresAt, err = time.Parse(time.RFC3339, expires); err != nil {
		return k, answer.BadRequest("expires_at must be a time as in %s, it is %s", api.Stamp(now.AddDate(1, 0, 0)), answer.Quoted(expires))
	}
	k.ExpiresAt = k.ExpiresAt.UTC().Truncate(time.Second)
	if !now.Before(k.ExpiresAt) {
		return k, answer.BadRequest("expires_at %s is over already: it is %s", answer.Quoted(expires), api.Stamp(now))
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
func (ctl *Control) revokeKey(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	text := r.PathValue("id")
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return answer.Reply{}, noKey(text)
	}
	if err := answer.DecodeBody(r.Body); err != nil {
		return answer.Reply{}, err
	}
	err = ctl.cfg.Store.Admin.RevokeAPIKey(answer.Detached(r), id, ctl.cfg.AdminKey != "") //nolint:contextcheck // a client that goes away does not leave it in doubt
	switch {
	case errors.Is(err, store.ErrNotFound):
		return answer.Reply{}, noKey(text)
	case errors.Is(err, admin.ErrLastAdmin):
		return answer.Reply{}, answer.Failure{
			Status: http.StatusConflict,
			Text: "this is the last usable key that has every permission, and without one nobody could make keys: " +
				"make another first, or stop the server and run appview keys rescue",
		}
	case err != nil:
		return answer.Reply{}, err
	}
	ctl.cfg.Revoked(id)
	ctl.cfg.Log.InfoContext(r.Context(), "key revoked", "key", id)
	return answer.Reply{Status: http.StatusNoContent}, nil
}

func noKey(id string) error { return answer.NotFound("there is no key %.100s", id) }
