package store_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// said is a body of one CID, in the words of a source.
type said struct {
	src      index.Source
	verified bool
	data     string
}

func (w said) listed(tb testing.TB) index.Listed {
	tb.Helper()
	l := listed(tb, "a", "1")
	if !w.verified {
		l.Body = record.Body{CID: l.Body.CID, Data: []byte(w.data)}
	}
	l.Source = w.src
	return l
}

// TestWhatIsProvedIsNotReplacedByAClaim has two readings of a record, one after the
// other, both with the same CID.
func TestWhatIsProvedIsNotReplacedByAClaim(t *testing.T) {
	t.Parallel()
	var (
		bytesOfRepo  = said{src: index.SourceRepo, verified: true}
		bytesListed  = said{src: index.SourceListRecords, verified: true}
		blockOfRepo  = said{src: index.SourceRepo, data: `{"x":51.507351}`}
		blockOfProof = said{src: index.SourceProof, data: `{"x":51.507351}`}
		claim        = said{src: index.SourceListRecords, data: `{"x":51.5}`}
		otherClaim   = said{src: index.SourceListRecords, data: `{"x":51}`}
		live         = said{src: index.SourceLive, data: `{"x":51.50}`}
	)
	for _, c := range []struct {
		name         string
		first, later said
		replaced     bool
	}{
		{"a claim over a block's JSON", blockOfRepo, claim, false},
		{"a live claim over a block's JSON", blockOfRepo, live, false},
		{"a claim over a proof's JSON", blockOfProof, claim, false},
		{"a claim over bytes that were listed", bytesListed, claim, false},
		{"a claim over a repo's bytes", bytesOfRepo, claim, false},
		{"a live claim over a repo's bytes", bytesOfRepo, live, false},
		{"a block's JSON over bytes that were listed", bytesListed, blockOfRepo, false},
		{"another claim over a claim", claim, otherClaim, false},
		{"a live claim over a claim", claim, live, false},
		{"a proof's JSON over a block's JSON", blockOfRepo, blockOfProof, false},
		{"a block's JSON over a proof's JSON", blockOfProof, blockOfRepo, false},
		{"a block's JSON over a claim", claim, blockOfRepo, true},
		{"a proof's JSON over a live claim", live, blockOfProof, true},
		{"bytes that were listed over a claim", claim, bytesListed, true},
		{"bytes that were listed over a block's JSON", blockOfRepo, bytesListed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t)
			b := newBench(t, s)
			b.mustRead(alice, rev(1), segment(note, c.first.listed(t)))
			seq := only(t, s).Seq
			b.again()
			b.mustRead(alice, rev(2), segment(note, c.later.listed(t)))
			want, updated := c.first, int64(0)
			if c.replaced {
				want, updated = c.later, 1
			}
			rec := only(t, s)
			if l := want.listed(t); rec.Source != l.Source || rec.Body.Verified != l.Body.Verified || string(rec.Body.Data) != string(l.Body.Data) {
				t.Errorf("the index holds %s, %q", rec.Provenance(), rec.Body.Data)
			}
			if rec.Seq != seq != c.replaced {
				t.Errorf("the record was change %d, and is %d", seq, rec.Seq)
			}
			if got := b.row().Tally; got != (index.Tally{Records: 1, Updated: updated}) {
				t.Errorf("the tally is %+v", got)
			}
		})
	}
}

// TestAnotherCIDReplacesWhatIsProved: a record that has changed is only claimed at first.
func TestAnotherCIDReplacesWhatIsProved(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	b.again()
	changed := listed(t, "a", "2")
	changed.Body = record.Body{CID: changed.Body.CID, Data: []byte(`{"x":2.5}`)}
	b.mustRead(alice, rev(2), segment(note, changed))
	if rec := only(t, s); rec.Body.Verified || string(rec.Body.Data) != `{"x":2.5}` {
		t.Errorf("the index holds %s, %q", rec.Provenance(), rec.Body.Data)
	}
}

// TestClaimDuringADeletionBringsTheProvedRecordBack: a record that is to be deleted, and
// is found unchanged, is written anew as the index has it, not as it is claimed to be.
func TestClaimDuringADeletionBringsTheProvedRecordBack(t *testing.T) {
	t.Parallel()
	var b *bench
	s := cutOff(t, filepath.Join(t.TempDir(), "appview.db"), func(s *store.Store) {
		b = newBench(t, s)
		b.mustRead(alice, rev(1), segment(note, said{src: index.SourceRepo, verified: true}.listed(t)))
	}, func(s *store.Store) error {
		_, err := s.Collections.DeleteRecords(t.Context(), index.Filter{Collection: note})
		return err
	})
	b.s = s
	before := only(t, s)
	b.again()
	b.mustRead(alice, rev(1), segment(note, said{src: index.SourceListRecords, data: `{"x":"!"}`}.listed(t)))
	rec := only(t, s)
	if rec.Source != index.SourceRepo || !rec.Body.Verified || string(rec.Body.Data) != string(before.Body.Data) {
		t.Errorf("the index holds %s, %q", rec.Provenance(), rec.Body.Data)
	}
	if rec.Seq == before.Seq {
		t.Error("the deletion has still to come to it")
	}
}

// only is the one record that the index holds, in memory of its own.
func only(tb testing.TB, s *store.Store) (rec index.Record) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	n := 0
	err := s.Index.Export(ctx, index.Filter{Collection: note}, func(uint64) error { return nil }, func(r *index.Record) error {
		n++
		rec = *r
		rec.Body.Data = append([]byte(nil), r.Body.Data...)
		return nil
	})
	if err != nil || n != 1 {
		tb.Fatalf("%d records, %v", n, err)
	}
	return rec
}
