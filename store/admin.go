package store

import (
	"context"

	"appview/store/admin"
)

type (
	// APIKey is a key to the admin API.
	APIKey = admin.APIKey
	// Actor is who does what the audit log notes.
	Actor = admin.Actor
	// Event is an entry of the audit log.
	Event = admin.Event
)

// ErrLastAdmin says that a key is the last usable one that has every permission.
var ErrLastAdmin = admin.ErrLastAdmin

// WithActor returns a context whose changes are noted in the audit log as this
// actor's.
func WithActor(ctx context.Context, a Actor) context.Context { return admin.WithActor(ctx, a) }
