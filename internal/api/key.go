package api

import "github.com/google/uuid"

// Permission is something that a key may allow.
type Permission string

// The permissions.
const (
	AllPermissions Permission = "*"

	AuditRead         Permission = "audit:read"
	BackfillCreate    Permission = "backfill:create"
	BackfillRead      Permission = "backfill:read"
	Backup            Permission = "backup"
	CollectionsManage Permission = "collections:manage"
	DenylistManage    Permission = "denylist:manage"
	KeysManage        Permission = "keys:manage"
	RecordsDelete     Permission = "records:delete"
	RecordsRead       Permission = "records:read"
	StatsRead         Permission = "stats:read"
)

// Permissions is every permission that a key may have beside AllPermissions.
func Permissions() []Permission {
	return []Permission{
		AuditRead, BackfillCreate, BackfillRead, Backup, CollectionsManage, DenylistManage, KeysManage, RecordsDelete, RecordsRead, StatsRead,
	}
}

// KeyState is what a key is now.
type KeyState string

// The states of a key.
const (
	KeyUsable  KeyState = "usable"
	KeyExpired KeyState = "expired"
	KeyRevoked KeyState = "revoked"
)

// KeyRequest is what a new key is to be.
type KeyRequest struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	ExpiresAt   string   `json:"expires_at,omitempty"`
}

// Key is an API key. The key itself is in it only once, when it is made.
type Key struct {
	ID          uuid.UUID `json:"id"`
	Name        string    `json:"name"`
	Prefix      string    `json:"prefix"`
	Permissions []string  `json:"permissions"`
	State       KeyState  `json:"state"`
	CreatedAt   string    `json:"created_at"`
	ExpiresAt   *string   `json:"expires_at"`
	LastUsedAt  *string   `json:"last_used_at"`
	RevokedAt   *string   `json:"revoked_at"`
	Key         string    `json:"key,omitempty"`
}

// Keys is the list of keys.
type Keys struct {
	Keys           []Key `json:"keys"`
	EnvironmentKey bool  `json:"environment_key"` // there is a configured one beside them
}
