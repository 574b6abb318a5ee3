package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

func TestClockOfTestsJumpsByTheWallOnly(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, by := range []time.Duration{year, -year, 0, time.Hour} {
		then := storetest.Jumped(now, by)
		if got := then.Round(0).Sub(now.Round(0)); got != by || then.Sub(now) != 0 {
			t.Fatalf("set forward by %s, but %s by the wall, %s by what has passed: these tests test nothing", by, got, then.Sub(now))
		}
	}
}

// keeper is a store that is opened again and again, on a clock that is set.
type keeper struct {
	*bench

	path  string
	clock storetest.Clock
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{path: filepath.Join(t.TempDir(), "appview.db")}
	k.bench = &bench{t: t}
	k.open()
	k.job = newJob(t, k.s, nil)
	return k
}

func (k *keeper) open() {
	k.t.Helper()
	s, err := store.Open(store.Config{Path: k.path, Now: k.clock.Now, FlushEvery: time.Millisecond})
	if err != nil {
		k.t.Fatal(err)
	}
	k.s = s
}

// reopen closes the store, sets the clock, opens the store again, and deletes what is
// kept no longer.
func (k *keeper) reopen(ahead time.Duration) {
	k.t.Helper()
	if err := k.s.Close(); err != nil {
		k.t.Fatal(err)
	}
	k.clock.Set(ahead)
	k.open()
	k.prune()
}

func (k *keeper) prune() {
	k.t.Helper()
	if _, err := k.s.Index.IndexKeys(k.t.Context(), note); err != nil { // which deletions are kept for at least
		k.t.Fatal(err)
	}
	for done := false; !done; {
		var err error
		if done, err = k.s.Prune(k.t.Context()); err != nil {
			k.t.Fatal(err)
		}
	}
}

// kept reports whether the work of a job is still there.
func (k *keeper) kept(job jobs.Job) bool {
	k.t.Helper()
	_, err := k.s.Work.Owed(k.t.Context(), job.Seq, host, "", 1)
	return err == nil
}

// ended is a job that reads alice, and has ended.
func (k *keeper) ended() jobs.Job {
	k.t.Helper()
	k.again()
	k.mustRead(alice, rev(1), segment(note, listed(k.t, "a", "1")))
	if err := k.s.Work.EndDiscovery(k.t.Context(), k.job.Seq, ""); err != nil {
		k.t.Fatal(err)
	}
	job, err := k.s.Jobs.FinishJob(k.t.Context(), k.job.Seq, none)
	if err != nil || !job.Status.Final() {
		k.t.Fatalf("job: %+v, %v", job, err)
	}
	return job
}

func TestWhatIsKeptIsNotForgottenForAClockThatJumps(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	job := k.ended()
	if _, err := k.s.Collections.DeleteRecords(t.Context(), index.Filter{DID: alice}); err != nil {
		t.Fatal(err)
	}
	deletions := k.deletions()
	for _, ahead := range []time.Duration{year, -year, 50 * year, 0} {
		k.clock.Set(ahead)
		k.prune()
		k.reopen(ahead + year)
		k.reopen(ahead)
	}
	if !k.kept(job) || k.deletions() != deletions || deletions == 0 {
		t.Errorf("the work of a job that has just ended is there: %t; notes of deletions: %d of %d", k.kept(job), k.deletions(), deletions)
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, k.path)
}

// deletions is how many notes of deleted records there are.
func (k *keeper) deletions() int {
	k.t.Helper()
	path := filepath.Join(k.t.TempDir(), "copy.db")
	f, err := os.Create(path)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := errors.Join(k.s.Backup(k.t.Context(), func(int64) error { return nil }, f), f.Close()); err != nil {
		k.t.Fatal(err)
	}
	n := 0
	for at := range raw(k.t, path) {
		if strings.Count(at, "/") == 2 && strings.HasPrefix(at, "deletions/") {
			n++
		}
	}
	return n
}

// TestWhatAClockThatWasAheadHasWrittenIsNotKeptForAYear ends a job, and deletes a
// record, while the clock is a year ahead. They are forgotten as long after that as
// any.
func TestWhatAClockThatWasAheadHasWrittenIsNotKeptForAYear(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.reopen(year)
	job := k.ended()
	if _, err := k.s.Collections.DeleteRecords(t.Context(), index.Filter{DID: alice}); err != nil {
		t.Fatal(err)
	}
	if before := time.Now().Add(year - day); job.CompletedAt.Before(before) {
		t.Errorf("completed at %s, which is not by the clock that was ahead", job.CompletedAt)
	}
	k.reopen(0)
	days := 0
	for ; k.kept(job) && days < 40; days++ {
		k.reopen(time.Duration(days+1) * day)
	}
	if days < 27 || days > 29 {
		t.Errorf("the work was forgotten after %d days, want 28", days)
	}
	for ; k.deletions() > 0 && days < 40; days++ {
		k.reopen(time.Duration(days+1) * day)
	}
	if days < 29 || days > 31 {
		t.Errorf("the deletions were forgotten after %d days, want 30", days)
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAuditLogIsKeptWhateverTheClockSaid starts for the first time with a clock that is
// years ahead, as that of a new machine may be, and goes on when it is right.
func TestAuditLogIsKeptWhateverTheClockSaid(t *testing.T) {
	t.Parallel()
	k := &keeper{path: filepath.Join(t.TempDir(), "appview.db")}
	k.bench = &bench{t: t}
	k.clock.Set(5 * year)
	k.open()
	if err := k.s.Collections.Track(t.Context(), note); err != nil { // the store's clock begins
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, 5 * year, -5 * year, 0} {
		k.clock.Set(ahead)
		if err := k.s.Admin.Note(asAdmin(t), admin.Event{Action: api.ActBackup}); err != nil {
			t.Fatal(err)
		}
		k.prune()
	}
	if list, _, err := k.s.Admin.Events(t.Context(), 0, 10); err != nil || len(list) != 4 {
		t.Errorf("%d of 4 events are there, %v", len(list), err)
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAccountIsNotPurgedForAJump has an account not found twice in a row, while the
// clock says that a year lies between.
func TestAccountIsNotPurgedForAJump(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.ended()
	missing := func() {
		t.Helper()
		k.again()
		k.owe(alice)
		k.must(func(done func(error)) error {
			return k.s.Work.Settle(t.Context(), k.job.Seq, jobs.Settlement{
				DID: alice, Reading: index.Reading{Host: host}, Account: index.AccountNotFound,
				Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: index.AccountNotFound},
			}, done)
		})
	}
	missing()
	k.clock.Set(year)
	missing()
	k.reopen(3 * year)
	missing()
	k.reopen(0)
	held := func() int64 {
		t.Helper()
		repo, err := k.s.Index.Repo(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		return repo.Collections[note].Count
	}
	if held() != 1 {
		t.Error("the records were purged though the account was missing for a moment")
	}
	for n := 1; n <= 8; n++ {
		k.reopen(time.Duration(n) * day)
	}
	missing()
	if held() != 0 {
		t.Error("the records were kept though the account was missing for a week")
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAccountIsPurgedForWordsAlone has an account not found for weeks without a word of
// its host's that it is not there, and then with one.
func TestAccountIsPurgedForWordsAlone(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.ended()
	missing := func(inferred bool) {
		t.Helper()
		k.again()
		k.owe(alice)
		k.must(func(done func(error)) error {
			return k.s.Work.Settle(t.Context(), k.job.Seq, jobs.Settlement{
				DID: alice, Reading: index.Reading{Host: host}, Account: index.AccountNotFound, Inferred: inferred,
				Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: index.AccountNotFound},
			}, done)
		})
	}
	days := 0
	pass := func(n int) { // a day at most counts between two processes
		t.Helper()
		for range n {
			days++
			k.reopen(time.Duration(days) * day)
		}
	}
	want := func(count int64, why string) {
		t.Helper()
		repo, err := k.s.Index.Repo(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		if got := repo.Collections[note].Count; got != count || repo.Account != index.AccountNotFound {
			t.Errorf("%s: %d records are held of an account that is %s, want %d", why, got, repo.Account, count)
		}
	}
	missing(true)
	pass(9)
	missing(true)
	want(1, "twice without a word")
	missing(false)
	pass(9)
	missing(true)
	want(1, "with a word, then without")
	missing(false)
	want(0, "twice with a word")
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOrderOfChangesIsNotTheClocks writes records while the clock goes back.
func TestOrderOfChangesIsNotTheClocks(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	var want []syntax.RecordKey
	for i := range 5 {
		k.reopen(-time.Duration(i) * year)
		k.again()
		rkey := fmt.Sprint("k", i)
		k.mustRead(syntax.DID(fmt.Sprintf("did:plc:%024d", i)), rev(1), segment(note, listed(t, rkey, rkey)))
		want = append([]syntax.RecordKey{syntax.RecordKey(rkey)}, want...)
	}
	list, _, err := newest(t.Context(), k.s, note, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []syntax.RecordKey
	for i, r := range list {
		got = append(got, r.RKey)
		if i > 0 && !r.IndexedAt.After(list[i-1].IndexedAt) {
			t.Errorf("indexed at %s after %s: the clock was not set back", r.IndexedAt, list[i-1].IndexedAt)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("newest first: %v, want %v", got, want)
	}
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
}
