package store_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

func TestOrderOfAListing(t *testing.T) {
	t.Parallel()
	for keys, want := range map[string]jobs.Order{
		"": jobs.OrderUnknown, "a": jobs.OrderUnknown, "aa": jobs.OrderUnknown, "abc": jobs.OrderUp, "abbc": jobs.OrderUp, "cba": jobs.OrderDown,
		"ccba": jobs.OrderDown, "aba": jobs.OrderNone, "cbc": jobs.OrderNone, "abcab": jobs.OrderNone, "cbad": jobs.OrderNone, "abad": jobs.OrderNone,
	} {
		var order jobs.Order
		last := syntax.RecordKey("")
		for k := range strings.SplitSeq(keys, "") {
			order, last = order.With(last, syntax.RecordKey(k)), syntax.RecordKey(k)
		}
		if order != want {
			t.Errorf("%q is listed in order %q, want %q", keys, order, want)
		}
	}
}

// steps saves steps of a listing of a collection, each as the keys that it lists, and
// returns how many were new in each.
func (b *bench) steps(at syntax.TID, steps ...string) (fresh []int) {
	b.t.Helper()
	pos := jobs.Position{First: at, Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "more"}}}
	for _, keys := range steps {
		n, err := b.s.Work.Save(b.t.Context(), b.job.Seq, alice, index.Reading{Host: host, Rev: at, Segments: []index.Segment{b.lists(keys)}}, pos)
		if err != nil {
			b.t.Fatal(err)
		}
		fresh = append(fresh, n)
	}
	return fresh
}

// lists is a segment with the keys, those in upper case rejected.
func (b *bench) lists(keys string) index.Segment {
	seg := segment(note)
	for k := range strings.SplitSeq(keys, "") {
		if low := strings.ToLower(k); low != k {
			seg.Rejected = append(seg.Rejected, syntax.RecordKey(low))
		} else {
			seg.Records = append(seg.Records, listed(b.t, k, "1"))
		}
	}
	return seg
}

// TestRecordListedInSeveralStepsCountsOnce reads a repo in steps whose pages overlap, in
// several orders, rejected records among them. Before that the index holds a record that
// is not listed at all.
func TestRecordListedInSeveralStepsCountsOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps []string // the last is settled
		fresh []int
		want  index.Tally
	}{
		"upwards, each border twice":  {[]string{"ab", "bcd", "def"}, []int{2, 2}, index.Tally{Records: 6, Created: 6, Deleted: 1}},
		"downwards, borders of two":   {[]string{"fed", "edc", "dcba"}, []int{3, 1}, index.Tally{Records: 6, Created: 6, Deleted: 1}},
		"no order":                    {[]string{"cfa", "fb", "adbe"}, []int{3, 1}, index.Tally{Records: 6, Created: 6, Deleted: 1}},
		"it wraps":                    {[]string{"abc", "def", "abc", "def"}, []int{3, 3, 0}, index.Tally{Records: 6, Created: 6, Deleted: 1}},
		"rejected ones":               {[]string{"aB", "bc", "Cd"}, []int{2, 1}, index.Tally{Records: 3, Created: 3, Rejected: 1, Deleted: 1}},
		"nothing new in the last one": {[]string{"abc", "c"}, []int{3}, index.Tally{Records: 3, Created: 3, Deleted: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.mustRead(alice, rev(1), segment(note, listed(t, "z", "old")))
			b.again()
			b.owe(alice)
			end := len(c.steps) - 1
			if got := b.steps(rev(2), c.steps[:end]...); !slices.Equal(got, c.fresh) {
				t.Errorf("new in the steps: %v, want %v", got, c.fresh)
			}
			b.mustSettle(settlement(alice, rev(2), b.lists(c.steps[end])))
			if got := b.row().Tally; got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			wantRecords(t, b.s, c.want.Records)
		})
	}
}

// TestOnlyWhatIsConfirmedIsDeleted has a listing that does not prove what is absent.
func TestOnlyWhatIsConfirmedIsDeleted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		confirmed []syntax.RecordKey
		complete  bool
		left      int64
		reason    string
		floor     syntax.TID
	}{
		"all of it":                 {[]syntax.RecordKey{"d", "e"}, true, 3, jobs.ReasonExact, rev(2)},
		"some of it":                {[]syntax.RecordKey{"d"}, true, 4, jobs.ReasonChangedDuringRead, rev(2)},
		"nothing":                   {nil, true, 5, jobs.ReasonChangedDuringRead, rev(2)},
		"some, and it has no end":   {[]syntax.RecordKey{"e"}, false, 4, jobs.ReasonChangedDuringRead, rev(1)},
		"what was listed, and more": {[]syntax.RecordKey{"a", "d", "x"}, false, 4, jobs.ReasonChangedDuringRead, rev(1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.mustRead(alice, rev(1), five(t))
			b.again()
			b.owe(alice)
			b.steps(rev(2), "b", "ab")
			last := settlement(alice, rev(2), b.lists("c"))
			if got, err := b.s.Work.Unlisted(t.Context(), b.job.Seq, alice, last.Reading.Segments[0], 10); err != nil || !slices.Equal(got, []syntax.RecordKey{"d", "e"}) {
				t.Errorf("not listed: %v, %v", got, err)
			}
			if got, err := b.s.Work.Unlisted(t.Context(), b.job.Seq, alice, last.Reading.Segments[0], 1); err != nil || len(got) != 1 {
				t.Errorf("one that was not listed: %v, %v", got, err)
			}
			last.Exact, last.Confirmed = true, map[syntax.NSID][]syntax.RecordKey{note: c.confirmed}
			if !c.complete {
				last.Complete = nil
			}
			b.mustSettle(last)
			wantRecords(t, b.s, c.left)
			if got := b.row().Reasons; got[c.reason] != 1 {
				t.Errorf("settled as %v, want %s", got, c.reason)
			}
			if repo, err := b.s.Index.Repo(t.Context(), alice); err != nil || repo.Collections[note].Floor != c.floor {
				t.Errorf("%+v, %v, want the floor %s", repo, err, c.floor)
			}
		})
	}
}

// TestMarksEndWithTheReading begins to read a repo in steps, and has that end in every way
// there is. Nothing of the first reading counts in the next one.
func TestMarksEndWithTheReading(t *testing.T) {
	t.Parallel()
	const elsewhere = "https://new.example.com"
	for name, end := range map[string]func(*bench) error{
		"read anew": func(b *bench) error {
			return b.s.Work.Restart(b.t.Context(), b.job.Seq, host, alice, jobs.Position{First: rev(1)})
		},
		"moved, and back": func(b *bench) error {
			for _, way := range [][2]string{{host, elsewhere}, {elsewhere, host}} {
				if err := b.try(func(done func(error)) error {
					return b.s.Work.Rehost(b.t.Context(), b.job.Seq, alice, way[0], way[1], done)
				}); err != nil {
					return err
				}
			}
			return nil
		},
		"given up, and read by the next job": func(b *bench) error {
			_, err := b.s.Work.SettleHost(b.t.Context(), b.job.Seq, host, jobs.Verdict{Class: jobs.ClassFailed, Reason: "host_down"})
			b.again()
			b.owe(alice)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.owe(alice)
			b.steps(rev(1), "abc", "cde")
			if err := end(b); err != nil {
				t.Fatal(err)
			}
			if fresh := b.steps(rev(1), "cd"); fresh[0] != 2 {
				t.Errorf("%d of two are new", fresh[0])
			}
			b.mustSettle(settlement(alice, rev(1), b.lists("d")))
			if got := b.row().Tally; got.Records != 2 || got.Deleted != 3 {
				t.Errorf("%+v", got)
			}
			wantRecords(t, b.s, 2)
		})
	}
}
