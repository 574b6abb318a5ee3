package admin

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/kv"
)

// How much of the audit log is kept. What is older, or more, is deleted.
const (
	keepEvents   = 400 * 24 * time.Hour
	keepEventsNo = 50_000
)

// maxEventText bounds what an event repeats of what an administrator sent.
const maxEventText = 2_000

// Actor is who does what the audit log notes. It holds nothing secret.
type Actor struct {
	Kind   api.ActorKind `json:"kind"`
	KeyID  uuid.UUID     `json:"key_id,omitzero"`
	Prefix string        `json:"prefix,omitempty"`
	Name   string        `json:"name,omitempty"`
}

// actorOf is the key under which a context holds an Actor.
type actorOf struct{}

// WithActor returns a context whose changes are noted in the audit log as this
// actor's. Changes without an actor are the program's own, and are not noted.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorOf{}, a)
}

// ActorIn is the actor of a context, nil if it has none.
func ActorIn(ctx context.Context) *Actor {
	if a, ok := ctx.Value(actorOf{}).(Actor); ok {
		return &a
	}
	return nil
}

// Event is an entry of the audit log. What was refused changed nothing and is not
// noted: whoever may do little must not be able to push out what others did.
type Event struct {
	Seq     uint64      `json:"-"` // order of events
	At      time.Time   `json:"at"`
	Actor   Actor       `json:"actor"`
	Action  api.Action  `json:"action"`
	Target  string      `json:"target,omitempty"` // the id or the name of what it was done to
	Detail  string      `json:"detail,omitempty"` // in words
	Outcome api.Outcome `json:"outcome"`

	KeptFrom time.Time `json:"kept_from,omitzero"` // the same as At by the store's own clock
}

var events = kv.Table[Event]{Name: "audit", Version: 1, Fill: kv.FillAppend}

// addAudit makes the bucket of the audit log, in a file from before there was one.
func addAudit(tx *kv.Tx) error { return kv.MakeBuckets(tx, events.Name) }

// Note writes what ctx's actor does into the audit log, in the transaction that
// does it. It is the last step of a change: one that is refused notes nothing.
func Note(ctx context.Context, tx *kv.Tx, e Event) error {
	if by := ActorIn(ctx); by != nil {
		return NoteOf(tx, *by, e)
	}
	return nil
}

// NoteOf writes what an actor does into the audit log: see Note.
func NoteOf(tx *kv.Tx, actor Actor, e Event) error {
	b := events.Bucket(tx)
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	e.At, e.KeptFrom, e.Actor = tx.Now, tx.Steady, actor
	e.Target, e.Detail = shorten(e.Target), shorten(e.Detail)
	if e.Outcome == "" {
		e.Outcome = api.OutcomeDone
	}
	return events.Put(b, kv.NumberKey(seq), e)
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
func (a *Admin) Note(ctx context.Context, e Event) error {
	return a.do(ctx, "note "+string(e.Action), func(tx *kv.Tx) error { return Note(ctx, tx, e) })
}

// Events returns up to limit entries of the audit log, the newest first, below the
// one given (0: from the top). next is where the following page starts, 0 at the
// end.
func (a *Admin) Events(ctx context.Context, below uint64, limit int) (list []Event, next uint64, err error) {
	err = a.db.View(ctx, func(tx *kv.Tx) error {
		c := events.Bucket(tx).Cursor()
		k, row := c.Last()
		if below > 0 {
			k, row = kv.SeekBefore(c, kv.NumberKey(below))
		}
		for ; k != nil; k, row = c.Prev() {
			if len(list) == limit {
				next = list[limit-1].Seq
				return nil
			}
			e, err := events.Decode(k, row)
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

// prune deletes events that are too old or too many, no more than left.
func prune(tx *kv.Tx, left *int) error {
	b := events.Bucket(tx)
	last, limit := b.Sequence(), tx.Steady.Add(-keepEvents)
	var errDecode error
	err := kv.DeleteFirst(b, left, func(k, row []byte) bool {
		if binary.BigEndian.Uint64(k)+keepEventsNo <= last {
			return true
		}
		e, err := events.Decode(k, row)
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
