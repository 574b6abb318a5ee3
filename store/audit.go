package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/store/kv"
)

// How much of the audit log is kept. What is older, or more, is deleted.
const (
	keepEvents   = 400 * 24 * time.Hour
	keepEventsNo = 50_000
)

// maxEventText bounds what an event repeats of what an administrator sent.
const maxEventText = 2_000

// ActorKind is by what right somebody acts.
type ActorKind string

// The kinds of actors. Stored: never renamed.
const (
	ActorKey         ActorKind = "key"             // with an API key
	ActorEnvironment ActorKind = "environment_key" // with the key of the configuration
	ActorDataDir     ActorKind = "data_dir"        // with access to the files of a stopped server
	ActorStart       ActorKind = "start"           // nobody: the program, when it starts
)

// Actor is who does what the audit log notes. It holds nothing secret.
type Actor struct {
	Kind   ActorKind `json:"kind"`
	KeyID  uuid.UUID `json:"key_id,omitzero"`
	Prefix string    `json:"prefix,omitempty"`
	Name   string    `json:"name,omitempty"`
}

// actorOf is the key under which a context holds an Actor.
type actorOf struct{}

// WithActor returns a context whose changes are noted in the audit log as this
// actor's. Changes without an actor are the program's own, and are not noted.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorOf{}, a)
}

// actorIn is the actor of a context, nil if it has none.
func actorIn(ctx context.Context) *Actor {
	if a, ok := ctx.Value(actorOf{}).(Actor); ok {
		return &a
	}
	return nil
}

// Action is what an administrator did.
type Action string

// The actions of the audit log. Stored: never renamed.
const (
	ActCreateJob     Action = "backfill:create"
	ActCancelJob     Action = "backfill:cancel"
	ActPauseJob      Action = "backfill:pause"
	ActResumeJob     Action = "backfill:resume"
	ActRetryJob      Action = "backfill:retry"
	ActDeleteRecords Action = "records:delete"
	ActDeny          Action = "denylist:add"
	ActAllow         Action = "denylist:remove"
	ActTrack         Action = "collection:add"
	ActUntrack       Action = "collection:remove"
	ActCreateKey     Action = "key:create"
	ActRevokeKey     Action = "key:revoke"
	ActBackup        Action = "backup"
)

// Outcome is what became of an action.
type Outcome string

// The outcomes of an action. Stored: never renamed.
const (
	OutcomeDone   Outcome = "done"
	OutcomeBegun  Outcome = "begun" // it is carried out whatever happens; another event says when it is done
	OutcomeFailed Outcome = "failed"
)

// Event is an entry of the audit log. What was refused changed nothing and is not
// noted: whoever may do little must not be able to push out what others did.
type Event struct {
	Seq     uint64    `json:"-"` // order of events
	At      time.Time `json:"at"`
	Actor   Actor     `json:"actor"`
	Action  Action    `json:"action"`
	Target  string    `json:"target,omitempty"` // the id or the name of what it was done to
	Detail  string    `json:"detail,omitempty"` // in words
	Outcome Outcome   `json:"outcome"`

	KeptFrom time.Time `json:"kept_from,omitzero"` // the same as At by the store's own clock
}

var events = table[Event]{name: "audit", version: 1, fill: fillAppend}

func addAudit(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists([]byte(events.name)); err != nil {
		return fmt.Errorf("create bucket %s: %w", events.name, err)
	}
	return nil
}

// note writes what ctx's actor does into the audit log, in the transaction that
// does it. It is the last step of a change: one that is refused notes nothing.
func (g *group) note(ctx context.Context, e Event) error {
	if by := actorIn(ctx); by != nil {
		return g.noteOf(*by, e)
	}
	return nil
}

func (g *group) noteOf(actor Actor, e Event) error {
	b := events.bucket(g.tx)
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	e.At, e.KeptFrom, e.Actor = g.now, g.steady, actor
	e.Target, e.Detail = shorten(e.Target), shorten(e.Detail)
	if e.Outcome == "" {
		e.Outcome = OutcomeDone
	}
	return events.put(b, u64Key(seq), e)
}

// shorten cuts a text to what an event may hold.
func shorten(text string) string {
	if len(text) <= maxEventText {
		return text
	}
	return strings.ToValidUTF8(text[:maxEventText], "") + "…"
}

// Note writes an action into the audit log that changes nothing in the store, with
// its outcome. It does nothing if ctx has no actor.
func (s *Store) Note(ctx context.Context, e Event) error {
	return s.do(ctx, "note "+string(e.Action), func(g *group) error { return g.note(ctx, e) })
}

// Events returns up to limit entries of the audit log, the newest first, below the
// one given (0: from the top). next is where the following page starts, 0 at the
// end.
func (s *Store) Events(ctx context.Context, below uint64, limit int) (list []Event, next uint64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		c := events.bucket(tx).Cursor()
		k, row := c.Last()
		if below > 0 {
			k, row = seekBefore(c, u64Key(below))
		}
		for ; k != nil; k, row = c.Prev() {
			if len(list) == limit {
				next = list[limit-1].Seq
				return nil
			}
			e, err := events.decode(k, row)
			if err != nil {
				return fmt.Errorf("event %x: %w", k, err)
			}
			e.Seq = binary.BigEndian.Uint64(k)
			list = append(list, e)
		}
		return nil
	})
	return list, next, err
}

// pruneEvents deletes the events that are too old or too many.
func (g *group) pruneEvents(left *int) error {
	b := events.bucket(g.tx)
	last, limit := b.Sequence(), g.steady.Add(-keepEvents)
	var errDecode error
	err := kv.DeleteFirst(b, left, func(k, row []byte) bool {
		if binary.BigEndian.Uint64(k)+keepEventsNo <= last {
			return true
		}
		e, err := events.decode(k, row)
		if err != nil {
			errDecode = fmt.Errorf("event %x: %w", k, err)
		}
		from := e.KeptFrom
		if from.IsZero() { // it was noted before there was one
			from = e.At
		}
		return err == nil && from.Before(limit)
	})
	if err == nil {
		err = errDecode
	}
	if err != nil {
		return fmt.Errorf("prune the audit log: %w", err)
	}
	return nil
}

// events checks that every event can be read.
func (c *checker) events(ctx context.Context) error {
	return events.bucket(c.tx).ForEach(func(k, row []byte) error {
		if _, err := events.decode(k, row); err != nil {
			c.found("event %x: %w", k, err)
		}
		return ctx.Err()
	})
}
