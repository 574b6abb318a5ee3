package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const (
	note  = syntax.NSID("com.example.note")
	other = syntax.NSID("com.example.other")
	alice = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	bob   = syntax.DID("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
	host  = "https://pds.example.com"
)

// rev is the nth rev of a repo.
func rev(n int) syntax.TID { return syntax.NewTIDFromInteger(uint64(n) + 1<<40) }

// body is a record value that differs for different texts.
func body(tb testing.TB, text string) record.Body {
	tb.Helper()
	data := append([]byte{0xa1, 0x61, 'x', 0x60 + byte(len(text))}, text...) // {"x": text} in DAG-CBOR
	hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		tb.Fatal(err)
	}
	return record.Body{CID: cid.NewCidV1(cid.DagCBOR, hash), Verified: true, Data: data}
}

// bench is a store with one job, and the means to have it find things.
type bench struct {
	t   testing.TB
	s   *store.Store
	job jobs.Job
}

func newBench(tb testing.TB, s *store.Store) *bench {
	tb.Helper()
	return &bench{t: tb, s: s, job: newJob(tb, s, nil)}
}

func newJob(tb testing.TB, s *store.Store, targets []syntax.NSID) jobs.Job {
	tb.Helper()
	return storetest.Job(tb, s, targets...)
}

// owe has the job discover the repo and find its host.
func (b *bench) owe(did syntax.DID) {
	b.t.Helper()
	b.oweAt(did, host)
}

func (b *bench) oweAt(did syntax.DID, at string) {
	b.t.Helper()
	if _, err := b.s.Work.Discover(b.t.Context(), b.job.Seq, jobs.Discovery{Listing: "test", DIDs: []syntax.DID{did}}); err != nil {
		b.t.Fatalf("discover: %v", err)
	}
	b.must(func(done func(error)) error {
		return b.s.Work.Rehost(b.t.Context(), b.job.Seq, did, "", at, done)
	})
}

// must waits for a change and wants it to be made.
func (b *bench) must(submit func(done func(error)) error) {
	b.t.Helper()
	if err := b.try(submit); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) try(submit func(done func(error)) error) error {
	done := make(chan error, 1)
	if err := submit(func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// again starts a new job, as a re-run does.
func (b *bench) again() { b.job = newJob(b.t, b.s, nil) }

func segment(c syntax.NSID, records ...index.Listed) index.Segment {
	return index.Segment{Collection: c, Records: records}
}

func listed(tb testing.TB, rkey, text string) index.Listed {
	tb.Helper()
	return index.Listed{RKey: syntax.RecordKey(rkey), Body: body(tb, text)}
}

// settlement is a complete reading of the segments' collections at a rev.
func settlement(did syntax.DID, at syntax.TID, segments ...index.Segment) jobs.Settlement {
	s := jobs.Settlement{
		DID: did, Floor: at, Account: index.AccountActive,
		Reading: index.Reading{Host: host, Rev: at, Source: index.SourceListRecords, Segments: segments},
	}
	for _, seg := range segments {
		s.Complete = append(s.Complete, seg.Collection)
	}
	return s
}

// read has the job read a repo.
func (b *bench) read(did syntax.DID, at syntax.TID, segments ...index.Segment) error {
	b.owe(did)
	return b.try(func(done func(error)) error {
		return b.s.Work.Settle(b.t.Context(), b.job.Seq, settlement(did, at, segments...), done)
	})
}

func (b *bench) mustRead(did syntax.DID, at syntax.TID, segments ...index.Segment) {
	b.t.Helper()
	if err := b.read(did, at, segments...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) row() jobs.Job {
	b.t.Helper()
	job, err := b.s.Jobs.Job(b.t.Context(), b.job.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// export is what the index serves: uri → cid, rev and seq.
func export(tb testing.TB, s *store.Store) map[string]string {
	tb.Helper()
	got := map[string]string{}
	err := s.Index.Export(tb.Context(), index.Filter{}, func(uint64) error { return nil }, func(r *index.Record) error {
		got[r.URI().String()] = r.Body.CID.String()
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func stats(tb testing.TB, s *store.Store) jobs.Stats {
	tb.Helper()
	st, err := s.Stats(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return st
}

func wantRecords(tb testing.TB, s *store.Store, n int64) {
	tb.Helper()
	got := export(tb, s)
	if int64(len(got)) != n {
		tb.Errorf("%d records served, want %d: %v", len(got), n, got)
	}
	var counted int64
	for _, c := range stats(tb, s).Collections {
		counted += c.Records
	}
	if counted != n {
		tb.Errorf("%d records counted, want %d", counted, n)
	}
}

func TestReadingBringsTheIndexInLine(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "c", "3"), listed(t, "b", "2"), listed(t, "a", "1")))
	if got, want := b.row().Tally, (index.Tally{Records: 3, Created: 3}); got != want {
		t.Errorf("first reading: %+v, want %+v", got, want)
	}
	b.again()
	b.mustRead(alice, rev(2), segment(note, listed(t, "d", "4"), listed(t, "b", "changed"), listed(t, "a", "1")))
	got := b.row()
	if want := (index.Tally{Records: 3, Created: 1, Updated: 1, Deleted: 1}); got.Tally != want {
		t.Errorf("second reading: %+v, want %+v", got.Tally, want)
	}
	if got.Tally.Unchanged() != 1 {
		t.Errorf("unchanged: %d, want 1", got.Tally.Unchanged())
	}
	wantRecords(t, b.s, 3)
}

func TestUnchangedRecordsAreNotWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	before := stats(t, b.s).Seq
	b.again()
	b.mustRead(alice, rev(5), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	if after := stats(t, b.s).Seq; after != before {
		t.Errorf("the highest seq went from %d to %d", before, after)
	}
	rec, err := b.s.Index.Record(t.Context(), record.URI{DID: alice, Collection: note, RKey: "a"})
	if err != nil || rec.Rev != rev(1) {
		t.Errorf("record has rev %s, %v; want that of its writing, %s", rec.Rev, err, rev(1))
	}
	if repo, err := b.s.Index.Repo(t.Context(), alice); err != nil || repo.Floor != rev(5) {
		t.Errorf("floor is %s, %v; want %s", repo.Floor, err, rev(5))
	}
}

func TestNothingOlderThanTheFloorIsWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(5), segment(note, listed(t, "a", "new")))
	b.again()
	err := b.read(alice, rev(4), segment(note, listed(t, "b", "old")))
	if !errors.Is(err, index.ErrRevWentBack) {
		t.Fatalf("got %v, want ErrRevWentBack", err)
	}
	if got := b.row(); got.Processed != 0 || got.TotalRepos != 1 {
		t.Errorf("a refused settlement moved the counters: %+v", got)
	}
	wantRecords(t, b.s, 1)
}

func TestRejectedRecordsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2")))
	b.again()
	b.mustRead(alice, rev(2), index.Segment{Collection: note, Records: []index.Listed{listed(t, "a", "1")}, Rejected: []syntax.RecordKey{"b"}})
	if got, want := b.row().Tally, (index.Tally{Records: 1, Rejected: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	wantRecords(t, b.s, 2)
}

func TestOtherCollectionsAreLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "z", "9")))
	b.again()
	b.mustRead(alice, rev(2), segment(note))
	wantRecords(t, b.s, 1)
}

func TestInactiveAccountsAreKeptAndNotServed(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "b", "2")))
	b.again()
	gone := settlement(alice, "")
	gone.Account, gone.Complete = "deactivated", nil
	b.owe(alice)
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), b.job.Seq, gone, done) })
	wantRecords(t, b.s, 1)
	if list, _, err := newest(t.Context(), b.s, note, 0, 10); err != nil || len(list) != 1 {
		t.Errorf("newest serves %d records, %v; want 1", len(list), err)
	}
	b.again()
	seq := stats(t, b.s).Seq
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	wantRecords(t, b.s, 2)
	if got := stats(t, b.s).Seq; got != seq {
		t.Errorf("an account that came back was written again: seq %d, then %d", seq, got)
	}
}

func TestDeletedAccountsArePurged(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")), segment(other, listed(t, "b", "2")))
	b.again()
	gone := settlement(alice, "")
	gone.Account, gone.Purge, gone.Complete = "deleted", true, nil
	b.owe(alice)
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), b.job.Seq, gone, done) })
	if got := b.row().Tally.Deleted; got != 2 {
		t.Errorf("%d records deleted, want 2", got)
	}
	if _, err := b.s.Index.Record(t.Context(), record.URI{DID: alice, Collection: note, RKey: "a"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("record of a deleted account: %v, want ErrNotFound", err)
	}
}

func TestRepoReadInStepsIsSweptAtItsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "e", "5"), listed(t, "d", "4"), listed(t, "c", "3"), listed(t, "b", "2"), listed(t, "a", "1")))
	b.again()
	b.owe(alice)
	at := jobs.Position{First: rev(2), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "c"}}}
	first := index.Segment{Collection: note, Records: []index.Listed{listed(t, "e", "5"), listed(t, "c", "3")}}
	read := index.Reading{Host: host, Rev: rev(2), Source: index.SourceListRecords, Segments: []index.Segment{first}}
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, b.s, 5) // nothing is absent before the end
	owed, err := b.s.Work.Owed(t.Context(), b.job.Seq, host, "", 10)
	if err != nil || len(owed) != 1 || owed[0].Position == nil || owed[0].Position.Read[note].Cursor != "c" {
		t.Fatalf("position is not kept: %+v, %v", owed, err)
	}
	last := settlement(alice, rev(2), index.Segment{Collection: note, Records: []index.Listed{listed(t, "a", "1")}})
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), b.job.Seq, last, done) })
	if got, want := b.row().Tally, (index.Tally{Records: 3, Deleted: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	wantRecords(t, b.s, 3)
}

func TestAbsentRecordWrittenLaterIsNotSwept(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	b.again()
	large := b.job
	b.owe(alice)
	at := jobs.Position{First: rev(2), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "a"}}}
	read := index.Reading{Host: host, Rev: rev(2), Segments: []index.Segment{{Collection: note, Records: []index.Listed{listed(t, "a", "1")}}}}
	if _, err := b.s.Work.Save(t.Context(), large.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	// Another job sees the record made again, at a later rev.
	b.again()
	b.mustRead(alice, rev(3), segment(note, listed(t, "b", "again"), listed(t, "a", "1")))
	last := settlement(alice, rev(4), index.Segment{Collection: note})
	last.Floor = at.First
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), large.Seq, last, done) })
	wantRecords(t, b.s, 2)
}

// TestNewestRecordIsIndexedLast reads a repo in the order of a listing and in that of
// a whole repo.
func TestNewestRecordIsIndexedLast(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "c", "3"), listed(t, "b", "2"), listed(t, "a", "1")))
	b.mustRead(bob, rev(1), segment(note, listed(t, "a", "1"), listed(t, "b", "2"), listed(t, "c", "3")))
	list, _, err := newest(t.Context(), b.s, note, 0, 10)
	if err != nil || len(list) != 6 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	for i, want := range []syntax.RecordKey{"c", "b", "a", "c", "b", "a"} {
		if list[i].RKey != want {
			t.Errorf("%s at %d, want %s", list[i].URI(), i, want)
		}
	}
}

func TestPagesOfReadsJoinWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	var records []index.Listed
	for i := 25; i > 0; i-- {
		records = append(records, listed(t, fmt.Sprintf("k%02d", i), fmt.Sprint(i)))
	}
	b.mustRead(alice, rev(1), segment(note, records...))
	b.mustRead(bob, rev(1), segment(note, records...))
	for _, ascending := range []bool{true, false} {
		var keys []string
		page := index.RepoPage{DID: alice, Collection: note, Ascending: ascending, Limit: 7}
		for {
			list, err := repoRecords(t.Context(), b.s, page)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			for _, r := range list {
				keys = append(keys, r.RKey.String())
			}
			page.After = list[len(list)-1].RKey
		}
		if len(keys) != 25 || (keys[0] == "k01") != ascending {
			t.Errorf("ascending %t: %v", ascending, keys)
		}
	}
	seen, below := map[string]bool{}, uint64(0)
	for {
		list, next, err := newest(t.Context(), b.s, note, below, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if seen[r.URI().String()] {
				t.Errorf("%s came twice", r.URI())
			}
			seen[r.URI().String()] = true
		}
		if next == 0 {
			break
		}
		below = next
	}
	if len(seen) != 50 {
		t.Errorf("newest gave %d records, want 50", len(seen))
	}
}

func TestUnlistedRecordStaysOnceTheCollectionWasReadSince(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	b.again()
	large := b.job
	b.owe(alice)
	at := jobs.Position{First: rev(2), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "a"}}}
	read := index.Reading{Host: host, Rev: rev(2), Segments: []index.Segment{{Collection: note, Records: []index.Listed{listed(t, "a", "1")}}}}
	if _, err := b.s.Work.Save(t.Context(), large.Seq, alice, read, at); err != nil {
		t.Fatal(err)
	}
	// Another job sees the record, unchanged, at a later rev.
	b.again()
	b.mustRead(alice, rev(3), segment(note, listed(t, "b", "2"), listed(t, "a", "1")))
	last := settlement(alice, rev(4), index.Segment{Collection: note})
	last.Floor = rev(2)
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), large.Seq, last, done) })
	wantRecords(t, b.s, 2)
}

func TestStepThatTheGuardRefusedIsNeverExact(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	first := b.job
	b.owe(alice)
	at := jobs.Position{First: rev(5), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "a"}}}
	step := func(at syntax.TID, text string) index.Reading {
		return index.Reading{Host: host, Rev: at, Segments: []index.Segment{{Collection: note, Records: []index.Listed{listed(t, "b", text)}}}}
	}
	if _, err := b.s.Work.Save(t.Context(), first.Seq, alice, step(rev(5), "new"), at); err != nil {
		t.Fatal(err)
	}
	b.again()
	b.owe(alice)
	if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, step(rev(3), "old"), at); err != nil {
		t.Fatal(err)
	}
	last := settlement(alice, rev(3), index.Segment{Collection: note})
	last.Exact = true
	b.must(func(done func(error)) error { return b.s.Work.Settle(t.Context(), b.job.Seq, last, done) })
	if got := b.row().Reasons; got[jobs.ReasonChangedDuringRead] != 1 {
		t.Errorf("settled with %v, although the guard refused a step", got)
	}
}

func TestLargeRepoIsDeletedInSteps(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64
	s := storetest.OpenConfig(t, store.Config{
		Path:  filepath.Join(t.TempDir(), "appview.db"),
		Hooks: store.Hooks{BeforeCommit: func() error { commits.Add(1); return nil }},
	})
	b := newBench(t, s)
	const n = 12_000
	var list []index.Listed
	for i := n; i > 0; i-- {
		list = append(list, listed(t, fmt.Sprintf("%06d", i), fmt.Sprint(i)))
	}
	b.mustRead(alice, rev(1), segment(note, list...))
	b.again()
	b.owe(alice)
	before := commits.Load()
	b.must(func(done func(error)) error {
		return s.Work.Settle(t.Context(), b.job.Seq, settlement(alice, rev(2), segment(note, list[0])), done)
	})
	if got := commits.Load() - before; got < 3 {
		t.Errorf("%d records were deleted in %d transactions", n-1, got)
	}
	if got, want := b.row().Tally, (index.Tally{Records: 1, Deleted: n - 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	wantRecords(t, s, 1)
}

func TestProvenanceTellsWhatIsOnlyClaimed(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]index.Record{
		"listRecords":             {Source: index.SourceListRecords, Body: record.Body{Verified: true}},
		"getRepo":                 {Source: index.SourceRepo, Body: record.Body{Verified: true}},
		"sync.getRecord":          {Source: index.SourceProof, Body: record.Body{Verified: true}},
		"listRecords, unverified": {Source: index.SourceListRecords},
		"getRepo, unverified":     {Source: index.SourceRepo},
	} {
		if got := r.Provenance(); got != want {
			t.Errorf("provenance is %q, want %q", got, want)
		}
	}
}
