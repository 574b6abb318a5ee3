package sandbox

import (
	"fmt"
	"math/rand/v2"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	// Of a hundred random changes this many create and update; the others delete.
	createWeight = 45
	updateWeight = 35
	// strangeShare is how often a random create goes into a collection that the
	// repo may not have had.
	strangeShare = 0.2
	// mutateTries bounds the search for an active account.
	mutateTries = 1000
)

// Change is what Mutate did.
type Change struct {
	Op  Op
	URI string
	Rev syntax.TID
}

// Mutate makes one random change to one record of one active account. It may be
// called concurrently, each caller with an rng of its own.
func (w *World) Mutate(rng *rand.Rand) (Change, error) {
	for range mutateTries {
		a := w.randomAccount(rng)
		if a.currentStatus() != StatusActive {
			continue
		}
		var done Change
		_, rev, err := w.commit(a.did, EventCommit, func(a *account) ([]Write, error) {
			one := w.randomWrite(a, rng)
			done = Change{Op: one.Op, URI: uriOf(a.did, one.Collection, one.RKey)}
			return []Write{one}, nil
		})
		if err != nil && a.currentStatus() != StatusActive {
			continue // it became inactive in between
		}
		done.Rev = rev
		return done, err
	}
	return Change{}, fmt.Errorf("find an active account among %d tries: %w", mutateTries, ErrInactive)
}

// randomWrite makes up a write that is possible in the repo as it is. The caller
// holds the account's lock.
func (w *World) randomWrite(a *account, rng *rand.Rand) Write {
	g := generator{rng: rng, odd: w.cfg.Odd}
	have := a.collections()
	dice := rng.IntN(100)
	if dice < createWeight || len(have) == 0 {
		c := w.generated(pick(rng, w.collections()))
		if len(have) > 0 && rng.Float64() >= strangeShare {
			c = w.generated(pick(rng, have))
		}
		rkey := g.rkey(c, &a.clock)
		value, odd := g.value(c, a.clock.datetime())
		return Write{Op: OpCreate, Collection: c.NSID, RKey: rkey, Value: value, Odd: odd}
	}
	c := w.generated(pick(rng, have))
	rkey := pick(rng, a.shelves[c.NSID].records).rkey
	if dice >= createWeight+updateWeight {
		return Write{Op: OpDelete, Collection: c.NSID, RKey: rkey}
	}
	a.clock.next()
	value, odd := g.value(c, a.clock.datetime())
	return Write{Op: OpUpdate, Collection: c.NSID, RKey: rkey, Value: value, Odd: odd}
}

// collections are those that random records may go into.
func (w *World) collections() []syntax.NSID {
	if len(w.cfg.Collections) == 0 {
		return []syntax.NSID{NoteCollection}
	}
	names := make([]syntax.NSID, len(w.cfg.Collections))
	for i, c := range w.cfg.Collections {
		names[i] = c.NSID
	}
	return names
}

// generated says how records of a collection look; a collection that the
// configuration does not know looks like any other.
func (w *World) generated(nsid syntax.NSID) Collection {
	for _, c := range w.cfg.Collections {
		if c.NSID == nsid {
			return c
		}
	}
	return Collection{NSID: nsid}
}
