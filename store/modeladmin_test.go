package store_test

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// The random changes that administrators and time make.

func (d *drive) opDeny() string {
	entry := pick(d, modelDenials)
	d.m.denied[entry] = "because"
	d.m.note(api.ActDeny, entry, "because")
	d.m.enforce()
	d.same("deny", d.s.Index.Deny(d.user(), entry, "because"), nil, "", "")
	return "deny " + entry
}

func (d *drive) opAllow() string {
	entry, want := pick(d, modelDenials), error(nil)
	if denied := sorted(d.m.denied); len(denied) > 0 && d.often(60) {
		entry = pick(d, denied)
	}
	if _, ok := d.m.denied[entry]; ok {
		delete(d.m.denied, entry)
		d.m.note(api.ActAllow, entry, "")
	} else {
		want = store.ErrNotFound
	}
	d.same("allow", d.s.Index.Allow(d.user(), entry), want, "", "")
	return "allow " + entry
}

func (d *drive) opDelete() string {
	f, want := index.Filter{}, jobs.ErrNoFilter
	if d.often(50) {
		f.DID, want = pick(d, modelDIDs), nil
	}
	if d.often(60) {
		f.Collection, want = pick(d, modelCollections), nil
	}
	n := int64(0)
	if want == nil {
		d.m.note(api.ActDeleteRecords, f.String(), "")
		d.m.events[len(d.m.events)-1].Outcome = api.OutcomeBegun
		n = d.m.deleteRecords(f)
		d.m.note(api.ActDeleteRecords, f.String(), fmt.Sprintf("%d records deleted", n))
	}
	got, err := d.s.Collections.DeleteRecords(d.user(), f)
	d.same("delete records", err, want, fact(got), fact(n))
	return "delete " + fact(f)
}

func (d *drive) opTrack() string {
	c := pick(d, modelCollections)
	d.m.track(c)
	d.same("track", d.s.Collections.Track(d.user(), c), nil, "", "")
	return "track " + c.String()
}

func (d *drive) opAddCollection() string {
	c, id := pick(d, modelCollections), d.uuid()
	j, wantAdded := d.m.addCollection(c, id)
	got, added, err := d.s.Collections.AddCollection(d.user(), c, id)
	want := "null"
	if j != nil {
		want = fact(j.Job)
	}
	d.same("add collection", err, nil, fmt.Sprint(added, fact(got)), fmt.Sprint(wantAdded, want))
	return "add collection " + c.String()
}

func (d *drive) opCover() string {
	c, id, origin := pick(d, modelCollections), d.uuid(), pick(d, []api.Origin{api.OriginStart, api.OriginRefresh, api.OriginRefresh})
	last := d.m.freshness(c).Last
	if d.often(10) {
		last++
	}
	j, want := d.m.coverCollection(c, id, origin, last)
	got, err := d.s.Collections.CoverCollection(d.user(), c, id, origin, last)
	if j != nil {
		d.same("cover collection", err, nil, fact(got), fact(j.Job))
	} else {
		d.same("cover collection", err, want, "", "")
	}
	return fmt.Sprintf("cover collection %s, %s", c, origin)
}

func (d *drive) opRemoveCollection() string {
	if d.often(30) {
		// Nothing is in the way.
		for _, j := range d.m.jobs {
			if !j.Status.Final() {
				d.moves(j, api.StatusCancelling)
				d.finishes(j)
			}
		}
	}
	c, records := pick(d, modelCollections), d.often(50)
	n, want := d.m.removeCollection(c, records)
	got, err := d.s.Collections.RemoveCollection(d.user(), c, records)
	d.same("remove collection", err, want, fact(got), fact(n))
	return fmt.Sprintf("remove collection %s, with its records: %t", c, records)
}

func (d *drive) opKey() string {
	secret := pick(d, modelSecrets)
	id := modelKeyIDs[secret]
	if d.often(40) {
		want := d.m.revokeKey(id)
		d.same("revoke key", d.s.Admin.RevokeAPIKey(d.user(), id, false), want, "", "")
		return "revoke key " + secret
	}
	k := admin.APIKey{ID: id, Name: secret, Permissions: []string{"stats:read"}, CreatedAt: d.m.clock()}
	want := d.m.putKey(secret, k)
	d.same("put key", d.s.Admin.PutAPIKey(d.user(), secret, k), want, "", "")
	return "put key " + secret
}

func (d *drive) opReopen() string {
	j := d.job()
	want, wantErr := d.m.reopen(j)
	if j.forgot {
		return "nothing"
	}
	got, _, err := d.s.Work.Reopen(d.t.Context(), j.Seq, "")
	d.same("reopen", err, wantErr, fmt.Sprint(got), fmt.Sprint(want))
	return fmt.Sprintf("reopen what job %d has assumed", j.Seq)
}

// user is the context of what somebody asks for.
func (d *drive) user() context.Context { return admin.WithActor(d.t.Context(), modelUser) }

// opClock moves the clock: mostly on, at times far, at times back.
func (d *drive) opClock() string {
	by := pick(d, []time.Duration{time.Second, time.Hour, 25 * time.Hour, 8 * 24 * time.Hour, 29 * 24 * time.Hour, 31 * 24 * time.Hour, -time.Hour, -24 * time.Hour})
	d.m.pass(by, false)
	d.touch()
	return "the clock moves by " + by.String()
}

func (d *drive) opPrune() string {
	indexed := map[syntax.NSID]uint64{}
	for _, c := range modelCollections {
		for done := d.often(50); !done; {
			var err error
			if done, err = d.s.Index.IndexKeys(d.t.Context(), c); err != nil {
				d.t.Fatal(err)
			}
		}
		var err error
		if indexed[c], err = d.s.Indexed(d.t.Context(), c); err != nil {
			d.t.Fatal(err)
		}
	}
	d.m.prune(indexed)
	for done := false; !done; {
		var err error
		if done, err = d.s.Prune(d.t.Context()); err != nil {
			d.t.Fatal(err)
		}
	}
	return "prune"
}

func (d *drive) opIndex() string {
	c := pick(d, modelCollections)
	_, err := d.s.Index.IndexKeys(d.t.Context(), c)
	d.same("index keys", err, nil, "", "")
	return "index keys of " + c.String()
}

func (d *drive) opOpenAgain() string {
	step := 0
	if d.often(50) {
		step = 1 + d.rng.IntN(3)
	}
	if d.m.limit = 0; d.often(40) {
		d.m.limit = 2000 + d.rng.Int64N(4000)
	}
	by := pick(d, []time.Duration{0, time.Minute, time.Hour, 20 * time.Hour, 30 * 24 * time.Hour, -time.Hour})
	d.close()
	d.m.pass(by, true)
	d.openWith(step)
	return fmt.Sprintf("reopen after %s, with %d rows in a transaction and %d bytes an account", by, step, d.m.limit)
}

func (d *drive) uuid() (id uuid.UUID) {
	for i := range id {
		id[i] = byte(d.rng.IntN(256))
	}
	return id
}
