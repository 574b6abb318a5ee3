package store_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// TestMisspeltCollectionsAreTakenOutOfAFile opens a file of the format before, which
// tracks collections under names that none may have, beside the right one and without it,
// and holds records and jobs of them.
func TestMisspeltCollectionsAreTakenOutOfAFile(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]uuid.UUID{"before any was tracked": newJob(t, s, nil).ID}
	for _, c := range []syntax.NSID{"com.EXAMPLE.note", note, "COM.example.other", "com.example.OTHER"} {
		if err := s.Collections.Track(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	newBench(t, s).mustRead(alice, rev(5), segment(note, listed(t, "a", "right")), segment("com.EXAMPLE.note", listed(t, "a", "wrong"), listed(t, "b", "wrong")))
	newBench(t, s).mustRead(bob, rev(5), segment("com.EXAMPLE.note", listed(t, "c", "wrong")), segment("com.example.OTHER", listed(t, "d", "right")))
	for name, targets := range map[string][]syntax.NSID{
		"right": {note}, "tracked": nil, "wrong": {"com.EXAMPLE.note"}, "one of two": {note, "COM.example.other"}, "paused": {"com.EXAMPLE.note"},
	} {
		job := newJob(t, s, targets)
		made[name] = job.ID
	}
	for _, to := range []api.Status{api.StatusPausing, api.StatusPaused} {
		job, err := s.Jobs.Job(ctx, made["paused"])
		if err == nil && to == api.StatusPausing {
			_, err = s.Jobs.MoveJob(ctx, made["paused"], to)
		} else if err == nil {
			_, err = s.Jobs.FinishJob(ctx, job.Seq, func(jobs.Job) string { return "" })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), store.AsFormat(path, 8)); err != nil {
		t.Fatal(err)
	}

	s = storetest.OpenPath(t, path)
	tracked, err := s.Collections.Tracked(ctx)
	if want := []syntax.NSID{"com.example.OTHER", note, "com.example.other"}; err != nil || !slices.Equal(tracked, want) {
		t.Errorf("tracked: %s, %v, want %s", tracked, err, want)
	}
	for name, want := range map[string]api.Status{
		"right": api.StatusRunning, "before any was tracked": api.StatusRunning, "tracked": api.StatusCancelling, "wrong": api.StatusCancelling, "one of two": api.StatusCancelling, "paused": api.StatusCancelling,
	} {
		if job, err := s.Jobs.Job(ctx, made[name]); err != nil || job.Status != want {
			t.Errorf("job %s is %s, %v, want %s", name, job.Status, err, want)
		}
	}
	ran, cancel := make(chan error, 1), context.CancelFunc(nil)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	go func() { ran <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	got := map[string]bool{}
	for len(got) != 2 {
		clear(got)
		err := s.Index.Export(ctx, index.Filter{}, func(uint64) error { return nil }, func(r *index.Record) error {
			got[r.Collection.String()+"/"+r.RKey.String()] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := ctx.Err(); err != nil {
			t.Fatalf("%v: %v", got, err)
		}
	}
	if want := map[string]bool{"com.example.note/a": true, "com.example.OTHER/d": true}; !maps.Equal(got, want) {
		t.Errorf("it holds %v, want %v", got, want)
	}

	job, err := s.Jobs.Job(ctx, made["wrong"])
	if err == nil {
		job, err = s.Jobs.FinishJob(ctx, job.Seq, func(jobs.Job) string { return "" })
	}
	if err != nil || job.Status != api.StatusCancelled {
		t.Fatalf("job: %+v, %v", job, err)
	}
	_, err = s.Jobs.RetryJob(ctx, job.ID, uuid.New())
	if !errors.Is(err, jobs.ErrNothingLeft) || !strings.Contains(err.Error(), "create a job over com.example.note") {
		t.Errorf("retried: %v", err)
	}
}
