package store_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// leaves has a job find at a host that an account is not active.
func (b *bench) leaves(did syntax.DID, at string) {
	b.t.Helper()
	b.again()
	b.oweAt(did, at)
	b.mustSettle(jobs.Settlement{
		DID: did, Account: index.AccountDeactivated, Reading: index.Reading{Host: at},
		Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: index.AccountDeactivated},
	})
}

// exactAlice is a settlement that saw everything of alice at one rev.
func exactAlice(at syntax.TID, segments ...index.Segment) jobs.Settlement {
	t := settlement(alice, at, segments...)
	t.Exact = true
	return t
}

// wantKept wants just these collections of alice to be held as they were at a rev, and
// a job to be able to keep them, and no others.
func (b *bench) wantKept(at syntax.TID, want ...syntax.NSID) {
	b.t.Helper()
	got, err := b.s.Work.Kept(b.t.Context(), host, alice, at)
	if err != nil || !slices.Equal(got, want) {
		b.t.Fatalf("kept are %v, %v; want %v", got, err, want)
	}
	keep := func(kept ...syntax.NSID) error {
		b.again()
		b.owe(alice)
		t := exactAlice(at)
		t.Kept, t.Complete = kept, kept
		return b.settle(t)
	}
	for _, c := range []syntax.NSID{note, other} {
		if slices.Contains(want, c) {
			continue
		}
		if err := keep(c); !errors.Is(err, index.ErrUndone) {
			b.t.Errorf("%s is kept: %v, want %v", c, err, index.ErrUndone)
		}
	}
	if len(want) == 0 {
		return
	}
	if err := keep(want...); err != nil {
		b.t.Fatal(err)
	}
	if got := b.row().Tally; got != (index.Tally{Records: int64(len(want))}) {
		b.t.Errorf("the job that keeps %v counts %+v", want, got)
	}
	if got, err := b.s.Work.Kept(b.t.Context(), host, alice, at); err != nil || !slices.Equal(got, want) {
		b.t.Errorf("afterwards %v are kept, %v; want %v", got, err, want)
	}
}

func TestOnlyWhatIsHeldExactlyIsKept(t *testing.T) {
	t.Parallel()
	one := listed(t, "a", "1")
	for name, c := range map[string]struct {
		assumed bool // of note, when it was read
		between func(*bench)
		left    string     // host at which the account is found inactive; empty: the same
		at      syntax.TID // empty: rev 1
		want    []syntax.NSID
	}{
		"nothing happens": {want: []syntax.NSID{note, other}},
		"one is written since": {between: func(b *bench) {
			b.mustRead(alice, rev(1), segment(note, one, listed(b.t, "Z", "1"))) // not known to be at one rev
		}, want: []syntax.NSID{other}},
		"one is read at a later rev": {between: func(b *bench) {
			b.owe(alice)
			b.mustSettle(exactAlice(rev(2), segment(note, one)))
		}, at: rev(2), want: []syntax.NSID{note}},
		"an entry was rejected": {between: func(b *bench) {
			b.owe(alice)
			seg := segment(note, one)
			seg.Rejected = []syntax.RecordKey{"Y"}
			b.mustSettle(exactAlice(rev(1), seg))
		}, want: []syntax.NSID{other}},
		"a record is deleted by an administrator": {between: func(b *bench) {
			b.mustDelete(index.Filter{Collection: note})
		}, want: []syntax.NSID{other}},
		"an end was assumed": {assumed: true, want: []syntax.NSID{note, other}},
		"an end was assumed, and the host's short pages are not the end": {assumed: true, between: func(b *bench) {
			b.distrust(bob, rev(1))
		}, want: []syntax.NSID{other}},
		"none was assumed, and the host's short pages are not the end": {between: func(b *bench) {
			b.distrust(bob, rev(1))
		}, want: []syntax.NSID{note, other}},
		"an end was assumed at another host": {assumed: true, left: "https://new.example.com", want: []syntax.NSID{other}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.owe(alice)
			read := exactAlice(rev(1), segment(note, one), segment(other, one))
			if c.assumed {
				read.Short.Assumed = []syntax.NSID{note}
			}
			b.mustSettle(read)
			b.again()
			if c.between != nil {
				c.between(b)
			}
			if c.left == "" {
				c.left = host
			}
			b.leaves(alice, c.left)
			if list, err := b.s.Work.Kept(t.Context(), host, alice, rev(3)); err != nil || len(list) > 0 {
				t.Errorf("at another rev %v are kept, %v", list, err)
			}
			if c.at == "" {
				c.at = rev(1)
			}
			b.wantKept(c.at, c.want...)
			rows, _, err := b.s.Jobs.JobRepos(t.Context(), b.job.Seq, "", 10, nil)
			if err != nil || len(rows) != 1 || rows[0].Assumed != (c.assumed && slices.Contains(c.want, note)) {
				t.Errorf("the job that keeps it has it as %+v, %v", rows, err)
			}
		})
	}
}

// TestNothingIsKeptThatADeletionHasStillToTake has a deletion be cut off before it has
// come to the records.
func TestNothingIsKeptThatADeletionHasStillToTake(t *testing.T) {
	t.Parallel()
	var b *bench
	s := cutOff(t, filepath.Join(t.TempDir(), "appview.db"), func(s *store.Store) {
		b = newBench(t, s)
		b.owe(alice)
		b.mustSettle(exactAlice(rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "a", "1"))))
		b.leaves(alice, host)
	}, func(s *store.Store) error {
		_, err := s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note})
		return err
	})
	b.s = s
	b.wantKept(rev(1), other)
}

// TestRepoThatLosesRecordsBetweenItsStepsIsNotExact has an administrator delete what the
// first step of a reading brought.
func TestRepoThatLosesRecordsBetweenItsStepsIsNotExact(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"deleted": true, "not deleted": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.owe(alice)
			first := segment(note, listed(t, "c", "3"))
			_, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, index.Reading{Host: host, Rev: rev(1), Segments: []index.Segment{first}}, jobs.Position{
				First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "c"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if deleted {
				b.mustDelete(index.Filter{DID: alice})
			}
			last := segment(note, listed(t, "b", "2"))
			b.mustSettle(exactAlice(rev(1), last))
			b.leaves(alice, host)
			if deleted {
				b.wantKept(rev(1))
				return
			}
			if list, err := b.s.Work.Kept(t.Context(), host, alice, rev(1)); err != nil || len(list) != 1 {
				t.Errorf("kept are %v, %v", list, err)
			}
		})
	}
}

func (b *bench) mustDelete(f index.Filter) {
	b.t.Helper()
	if n, err := b.s.Collections.DeleteRecords(b.t.Context(), f); err != nil || n == 0 {
		b.t.Fatalf("%d records deleted, %v", n, err)
	}
}
