package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// TestOldFileIsBroughtUpToDate opens a file as the first format's program has
// left it: two jobs that have ended, one in the middle of its work, a key, a
// tracked collection, a denied host. Everything in it is there, the job goes on,
// and what formats since have brought works on it.
func TestOldFileIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	old, err := os.ReadFile("testdata/format1.db")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "appview.db")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Config{Path: path, ReadOnly: true}); !errors.Is(err, store.ErrOlder) {
		t.Errorf("opened for reading only: %v, want ErrOlder", err)
	}
	s := storetest.OpenPath(t, path)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}

	wantRecords(t, s, 3)
	if list, _, err := byKey(t.Context(), s, note, nil, 10); err != nil || len(list) != 2 {
		t.Errorf("by key: %d records, %v", len(list), err)
	}
	if k, err := s.Admin.APIKey(t.Context(), "hv_secret"); err != nil || k.Name != "k" {
		t.Errorf("key: %+v, %v", k, err)
	}
	if list, err := s.Collections.Tracked(t.Context()); err != nil || len(list) != 1 || list[0] != note {
		t.Errorf("tracked: %v, %v", list, err)
	}
	if !s.Index.Denied(bob, "https://spam.example.com") {
		t.Error("the deny list is lost")
	}
	jobList, err := s.Jobs.List(t.Context())
	if err != nil || len(jobList) != 3 {
		t.Fatalf("%d jobs, %v", len(jobList), err)
	}
	if j := jobList[1]; j.Status != api.StatusCompleted || j.Tally != (index.Tally{Records: 1, Deleted: 1}) {
		t.Errorf("second job: %+v", j)
	}

	b := &bench{t: t, s: s, job: jobList[0]}
	owed, err := s.Work.Owed(t.Context(), b.job.Seq, host, "", 10)
	if err != nil || len(owed) != 2 || owed[0].Position == nil || owed[0].Position.Read[note].Cursor == "" || owed[1].Attempts != 2 {
		t.Fatalf("owed: %+v, %v", owed, err)
	}
	if h, err := s.Work.Host(t.Context(), b.job.Seq, host); err != nil || h.Total != 2 || h.Probes != 1 {
		t.Errorf("host: %+v, %v", h, err)
	}
	// Alice was read down to b. What was listed of her is not known any more.
	step := index.Reading{Host: host, Rev: rev(3), Segments: []index.Segment{segment(note, listed(t, "a", "5"))}}
	if _, err := s.Work.Save(t.Context(), b.job.Seq, alice, step, *owed[0].Position); !errors.Is(err, index.ErrUndone) {
		t.Errorf("a step behind those of the old format: %v, want ErrUndone", err)
	}
	if err := b.settle(settlement(alice, rev(3), step.Segments...)); !errors.Is(err, index.ErrUndone) {
		t.Errorf("the end behind steps of the old format: %v, want ErrUndone", err)
	}
	if err := s.Work.Restart(t.Context(), b.job.Seq, host, alice, jobs.Position{First: rev(3)}); err != nil {
		t.Fatal(err)
	}
	b.mustSettle(settlement(alice, rev(3), segment(note, listed(t, "c", "4"), listed(t, "a", "5"))))
	if got := b.row().Tally; got != (index.Tally{Records: 2, Created: 2, Deleted: 1}) {
		t.Errorf("alice was read to her end: %+v", got)
	}
	b.mustSettle(assuming(bob, rev(3), segment(note, listed(t, "c", "1"))))
	carol := syntax.DID("did:plc:cccccccccccccccccccccccc")
	b.distrust(carol, rev(1))
	b.reopen(host)
	b.mustSettle(settlement(bob, rev(3), segment(note, listed(t, "c", "1"))))
	if err := s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if got := b.finish(); got.Status != api.StatusCompleted || got.TotalRepos != 3 {
		t.Errorf("the job: %+v", got)
	}
	wantRecords(t, s, 6)
}
