package store_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/jobs"
)

// changesOfManyRows are changes that touch rows of several kinds.
var changesOfManyRows = map[string]func(*bench) error{
	"a page of a listing": func(b *bench) error {
		_, err := b.s.Work.Discover(b.t.Context(), b.job.Seq, jobs.Discovery{
			Listing: string(note), DIDs: []syntax.DID{alice, bob}, Cursor: jobs.Cursor{Cursor: "next", Pages: 2},
		})
		return err
	},
	"a look-up": func(b *bench) error {
		return b.try(func(done func(error)) error {
			return b.s.Work.Rehost(b.t.Context(), b.job.Seq, modelDIDs[2], "", modelHosts[0], done)
		})
	},
	"a step of a large repo": func(b *bench) error {
		read, at := saved(b.t, rev(2), "c", "changed")
		_, err := b.s.Work.Save(b.t.Context(), b.job.Seq, alice, read, at)
		return err
	},
	"a settlement": func(b *bench) error {
		return b.try(func(done func(error)) error {
			t := settlement(alice, rev(2), segment(note, listed(b.t, "f", "new"), listed(b.t, "b", "changed"), listed(b.t, "a", "1")))
			return b.s.Work.Settle(b.t.Context(), b.job.Seq, t, done)
		})
	},
	"a host that is given up": func(b *bench) error {
		_, err := b.s.Work.SettleHost(b.t.Context(), b.job.Seq, host, jobs.Verdict{Class: jobs.ClassFailed, Reason: "host_down"})
		return err
	},
	"a cancellation": func(b *bench) error {
		_, err := b.s.Jobs.MoveJob(admin.WithActor(b.t.Context(), modelUser), b.job.ID, api.StatusCancelling)
		return err
	},
	"a collection with its job": func(b *bench) error {
		_, _, err := b.s.Collections.AddCollection(admin.WithActor(b.t.Context(), modelUser), other, uuid.UUID{7})
		return err
	},
	"a key": func(b *bench) error {
		key := admin.APIKey{ID: uuid.UUID{8}, Name: "key", Permissions: []string{"stats:read"}}
		return b.s.Admin.PutAPIKey(admin.WithActor(b.t.Context(), modelUser), "hv_one", key)
	},
}

// TestChangeIsMadeAtOnceOrNotAtAll ends the process before and after the first commit
// of a change. What the next process finds must be what was there without the change,
// or all that it does: there is no second commit to wait for.
func TestChangeIsMadeAtOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	without := cutAt(t, 0, func(*bench) error { return nil })
	for name, change := range changesOfManyRows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with := cutAt(t, 0, change)
			if slices.Equal(with, without) {
				t.Fatal("the change changes nothing: this proves nothing")
			}
			cutAt(t, beforeCommit, change).differ(t, without)
			cutAt(t, afterCommit, change).differ(t, with)
		})
	}
}

// cutAt has a job find things, makes a change, ends the process around its first
// commit if asked to, and takes the picture of what the next process finds.
func cutAt(t *testing.T, where int32, change func(*bench) error) picture {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := &bed{t: t, path: filepath.Join(t.TempDir(), "appview.db"), m: newModel(now)}
	b.openWith(0)
	job, err := b.s.Jobs.CreateJob(t.Context(), uuid.UUID{1}, jobs.Request{}, nil)
	if err == nil {
		job, err = b.s.Jobs.StartJob(t.Context(), job.Seq)
	}
	if err != nil {
		t.Fatal(err)
	}
	one := &bench{t: t, s: b.s, job: job}
	one.mustRead(alice, rev(1), five(t))
	if one.job, err = b.s.Jobs.CreateJob(t.Context(), uuid.UUID{2}, jobs.Request{}, nil); err != nil {
		t.Fatal(err)
	}
	one.owe(alice)
	if _, err := b.s.Work.Discover(t.Context(), one.job.Seq, jobs.Discovery{Listing: "relay", DIDs: modelDIDs[2:3]}); err != nil {
		t.Fatal(err)
	}
	b.crash.Store(where)
	switch err := change(one); {
	case where == 0 && err != nil, where != 0 && !errors.Is(err, errModelCrash):
		t.Fatalf("the change was answered %v", err)
	}
	b.openWith(0)
	p := look(t, b.s, []syntax.NSID{note, other}, 10)
	b.close()
	return p
}
