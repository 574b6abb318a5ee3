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
	// ActorKind is by what right somebody acts.
	ActorKind = admin.ActorKind
	// Action is what an administrator did.
	Action = admin.Action
	// Outcome is what became of an action.
	Outcome = admin.Outcome
	// Event is an entry of the audit log.
	Event = admin.Event
)

// ErrLastAdmin says that a key is the last usable one that has every permission.
var ErrLastAdmin = admin.ErrLastAdmin

// AllPermissions is the permission of an admin key.
const AllPermissions = admin.AllPermissions

// The kinds of actors.
const (
	ActorKey         = admin.ActorKey
	ActorEnvironment = admin.ActorEnvironment
	ActorDataDir     = admin.ActorDataDir
	ActorStart       = admin.ActorStart
)

// The actions of the audit log.
const (
	ActCreateJob     = admin.ActCreateJob
	ActCancelJob     = admin.ActCancelJob
	ActPauseJob      = admin.ActPauseJob
	ActResumeJob     = admin.ActResumeJob
	ActRetryJob      = admin.ActRetryJob
	ActDeleteRecords = admin.ActDeleteRecords
	ActDeny          = admin.ActDeny
	ActAllow         = admin.ActAllow
	ActTrack         = admin.ActTrack
	ActUntrack       = admin.ActUntrack
	ActCreateKey     = admin.ActCreateKey
	ActRevokeKey     = admin.ActRevokeKey
	ActBackup        = admin.ActBackup
)

// The outcomes of an action.
const (
	OutcomeDone   = admin.OutcomeDone
	OutcomeBegun  = admin.OutcomeBegun
	OutcomeFailed = admin.OutcomeFailed
)

// WithActor returns a context whose changes are noted in the audit log as this
// actor's.
func WithActor(ctx context.Context, a Actor) context.Context { return admin.WithActor(ctx, a) }

// note writes what ctx's actor does into the audit log: see admin.Note.
func (g *group) note(ctx context.Context, e Event) error { return admin.Note(ctx, g.in, e) }

func (g *group) noteOf(actor Actor, e Event) error { return admin.NoteOf(g.in, actor, e) }

func actorIn(ctx context.Context) *Actor { return admin.ActorIn(ctx) }
