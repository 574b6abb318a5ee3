package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

var ownerOne, ownerTwo = uuid.UUID{1}, uuid.UUID{2}

// askedOnce is a context whose change is made once.
func askedOnce(tb testing.TB, owner uuid.UUID, key, request string) context.Context {
	tb.Helper()
	return jobs.WithIdempotency(asAdmin(tb), jobs.Idempotency{
		Owner: owner, Key: key, Request: sha256.Sum256([]byte(request)),
		Reply: func(job *jobs.Job, made bool) (jobs.Reply, error) {
			text := "no job"
			if job != nil {
				text = job.ID.String()
			}
			return jobs.Reply{Status: 201, Location: "/" + text, Body: fmt.Sprintf("%s <%t>\n", text, made)}, nil
		},
	})
}

// made is what a change was answered with when it was made before; nil: it was not.
func made(err error) *jobs.Reply {
	if e, is := errors.AsType[*jobs.ReplyError](err); is {
		return &e.Reply
	}
	return nil
}

// onces are the changes that are made once. The bench's job has ended.
var onces = map[string]func(context.Context, *bench) error{
	"create": func(ctx context.Context, b *bench) error {
		_, err := b.s.Jobs.CreateJob(ctx, uuid.New(), jobs.Request{Collection: note}, nil)
		return err
	},
	"retry": func(ctx context.Context, b *bench) error {
		_, err := b.s.Jobs.RetryJob(ctx, b.job.ID, uuid.New())
		return err
	},
	"add a collection": func(ctx context.Context, b *bench) error {
		_, _, err := b.s.Collections.AddCollection(ctx, other, uuid.New())
		return err
	},
}

// cancelled is a bench whose job has ended, and has left something undone.
func cancelled(t *testing.T, s *store.Store) *bench {
	t.Helper()
	b := newBench(t, s)
	_, err := s.Jobs.MoveJob(t.Context(), b.job.ID, api.StatusCancelling)
	if err == nil {
		_, err = s.Jobs.FinishJob(t.Context(), b.job.Seq, none)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplyIsKeptWithItsJob ends the process before and after the commit that makes a job
// and keeps the reply: the next process makes the job, or has made it.
func TestReplyIsKeptWithItsJob(t *testing.T) {
	t.Parallel()
	for name, change := range onces {
		for _, where := range []int32{beforeCommit, afterCommit} {
			t.Run(fmt.Sprintf("%s %d", name, where), func(t *testing.T) {
				t.Parallel()
				b := &bed{t: t, path: filepath.Join(t.TempDir(), "appview.db"), m: newModel(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
				b.openWith(0)
				one, ctx := cancelled(t, b.s), askedOnce(t, ownerOne, "k", "request")
				b.crash.Store(where)
				if err := change(ctx, one); !errors.Is(err, errModelCrash) {
					t.Fatalf("the change was answered %v", err)
				}
				b.openWith(0)
				one.s = b.s
				err := change(ctx, one)
				if wasMade := where == afterCommit; wasMade != (made(err) != nil) || !wasMade && err != nil {
					t.Errorf("in the next process: %v", err)
				}
				first := made(change(ctx, one))
				jobs := jobsOf(t, b.s)
				if len(jobs) != 2 || first == nil || first.Status != 201 || first.Location != "/"+jobs[0].ID.String() || first.Body != jobs[0].ID.String()+" <true>\n" {
					t.Errorf("%d jobs, want 2; replied: %+v", len(jobs), first)
				}
				if log := audit(t, b.s); len(log) < 1 || len(log) > 2 {
					t.Errorf("the audit log: %q", log)
				}
				b.close()
			})
		}
	}
}

func jobsOf(tb testing.TB, s *store.Store) []jobs.Job {
	tb.Helper()
	jobs, err := s.Jobs.List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return jobs
}

// TestReplyBelongsToItsOwnerAndRequest has several owners and requests use one key.
func TestReplyBelongsToItsOwnerAndRequest(t *testing.T) {
	t.Parallel()
	b := cancelled(t, storetest.Open(t))
	for name, change := range onces {
		if err := change(askedOnce(t, ownerOne, name, "request"), b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		jobList, log := len(jobsOf(t, b.s)), len(audit(t, b.s))
		first := made(change(askedOnce(t, ownerOne, name, "request"), b))
		if err := change(askedOnce(t, ownerOne, name, "another request"), b); !errors.Is(err, jobs.ErrOtherRequest) {
			t.Errorf("%s: another request: %v", name, err)
		}
		if again := made(change(askedOnce(t, ownerOne, name, "request"), b)); first == nil || again == nil || *again != *first {
			t.Errorf("%s: replied %+v, before %+v", name, again, first)
		}
		if len(jobsOf(t, b.s)) != jobList || len(audit(t, b.s)) != log {
			t.Errorf("%s: repeated, it has changed something", name)
		}
		if err := change(askedOnce(t, ownerTwo, name, "another request"), b); err != nil {
			t.Errorf("%s: another owner: %v", name, err)
		}
	}
}

func TestOfConcurrentEqualChangesOneIsMade(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.Jobs.CreateJob(askedOnce(t, ownerOne, "k", "request"), uuid.New(), jobs.Request{}, nil)
		})
	}
	wg.Wait()
	n := 0
	for _, err := range errs {
		if reply := made(err); err == nil {
			n++
		} else if reply == nil || reply.Location != "/"+jobsOf(t, s)[0].ID.String() {
			t.Errorf("%v: %+v", err, reply)
		}
	}
	if n != 1 || len(jobsOf(t, s)) != 1 {
		t.Errorf("%d of %d were made, there are %d jobs", n, len(errs), len(jobsOf(t, s)))
	}
}

// TestRepliesAreKeptForADay goes on by the clock, and jumps with it.
func TestRepliesAreKeptForADay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Now: func() time.Time { return now }})
	ask := func() error {
		t.Helper()
		_, err := s.Jobs.CreateJob(askedOnce(t, ownerOne, "k", "request"), uuid.New(), jobs.Request{}, nil)
		return err
	}
	kept := func() int {
		t.Helper()
		if done, err := s.Prune(t.Context()); err != nil || !done {
			t.Fatalf("prune: %t, %v", done, err)
		}
		all, err := s.Replies(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all[ownerOne])
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(24*time.Hour - time.Second)
	if err := ask(); made(err) == nil || kept() != 1 {
		t.Errorf("just before a day has gone by: %v", err)
	}
	now = now.Add(time.Second)
	if err := ask(); err != nil { // in spite of the row, which is not deleted yet
		t.Errorf("after a day: %v", err)
	}
	now = now.Add(time.Hour)
	if err := ask(); made(err) == nil {
		t.Errorf("an hour after that: %v", err)
	}
	now = now.Add(24 * time.Hour) // nothing is written meanwhile, so that the file's clock stands still
	if err := ask(); err != nil {
		t.Errorf("a day later: %v", err)
	}
	if n := kept(); n != 1 {
		t.Errorf("%d are kept, want 1", n)
	}
	now = now.Add(24 * time.Hour)
	if n := kept(); n != 0 {
		t.Errorf("%d are kept for longer than a day", n)
	}
	if n := len(jobsOf(t, s)); n != 3 {
		t.Errorf("%d jobs, want 3", n)
	}
}

// TestReplyIsKeptThoughTheClockJumps: a wall clock that is set makes nothing older.
func TestReplyIsKeptThoughTheClockJumps(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	ask := func() error {
		_, err := k.s.Jobs.CreateJob(askedOnce(t, ownerOne, "k", "request"), uuid.New(), jobs.Request{}, nil)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{year, -year, 50 * year, 0} {
		k.clock.Set(ahead)
		for _, what := range []string{"at once", "when it was pruned"} {
			if err := ask(); made(err) == nil {
				t.Errorf("the clock is set by %s, %s: %v", ahead, what, err)
			}
			k.prune()
		}
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, k.path)
}

// TestRepliesAreBounded fills the table, and goes on: who has most makes room.
func TestRepliesAreBounded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	const few = 50
	if err := s.FillReplies(t.Context(), ownerTwo, few, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := s.FillReplies(t.Context(), ownerOne, store.MaxReplies-few-1, time.Second); err != nil {
		t.Fatal(err)
	}
	ask := func(owner uuid.UUID, key string) {
		t.Helper()
		if _, err := s.Jobs.CreateJob(askedOnce(t, owner, key, "request"), uuid.New(), jobs.Request{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (one, two int) {
		t.Helper()
		all, err := s.Replies(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all[ownerOne]), len(all[ownerTwo])
	}
	ask(ownerTwo, "the last for which there is room")
	if one, two := count(); one+two != store.MaxReplies {
		t.Fatalf("%d replies, want %d", one+two, store.MaxReplies)
	}
	ask(ownerTwo, "one more")
	ask(ownerTwo, "and another")
	one, two := count()
	if want := (store.MaxReplies-few-1)*9/10 - 1; two != few+3 || one < want || one > want+1 {
		t.Errorf("%d of the one who has most, want about %d; %d of the other, want %d", one, want, two, few+3)
	}
	all, err := s.Replies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The higher its number, the older a reply is.
	if left := all[ownerOne]; !slices.Contains(left, "0") || !slices.Contains(left, fmt.Sprint(one-1)) || slices.Contains(left, fmt.Sprint(one)) {
		t.Error("others than the oldest have given way")
	}
}

// TestForgottenJobIsStillRepliedWith takes the jobs out of the file.
func TestForgottenJobIsStillRepliedWith(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Path: filepath.Join(t.TempDir(), "appview.db")}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, retry := cancelled(t, s), onces["retry"]
	if err := retry(askedOnce(t, ownerOne, "k", "request"), b); err != nil {
		t.Fatal(err)
	}
	want := made(retry(askedOnce(t, ownerOne, "k", "request"), b))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"jobs", "job_ids", "work", "unfinished"} {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
			b, err := tx.CreateBucket([]byte(name))
			if err == nil && name == "jobs" {
				err = b.SetSequence(binary.BigEndian.Uint64([]byte{0, 0, 0, 0, 0, 0, 0, 9}))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b.s = storetest.OpenConfig(t, cfg)
	if got := made(retry(askedOnce(t, ownerOne, "k", "request"), b)); want == nil || got == nil || *got != *want {
		t.Errorf("replied %+v, before %+v", got, want)
	}
	if err := retry(askedOnce(t, ownerOne, "another", "request"), b); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("retry %s, which is forgotten: %v", b.job.ID, err)
	}
	if n := len(jobsOf(t, b.s)); n != 0 {
		t.Errorf("%d jobs", n)
	}
}
