package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

func TestServedReadsKnowTheAccount(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	// Neither the host nor a collection can look like the status of an account.
	b.mustRead(alice, rev(1), segment(note, listed(t, "b", "2"), listed(t, "a", "1")), segment("com.example.account", listed(t, "active", "x")))
	uri := record.URI{DID: alice, Collection: note, RKey: "a"}
	page := index.RepoPage{DID: alice, Collection: note, Limit: 10}
	if rec, account, err := s.Index.ServedRecord(t.Context(), uri); err != nil || account != index.AccountActive || rec.URI() != uri {
		t.Errorf("record: %v %q %v", rec.URI(), account, err)
	}
	if list, account, more, err := servedPage(t.Context(), s, page); err != nil || account != index.AccountActive || more || len(list) != 2 {
		t.Errorf("page: %v %q %t %v", list, account, more, err)
	}
	for _, missing := range []record.URI{{DID: alice, Collection: note, RKey: "c"}, {DID: alice, Collection: other, RKey: "a"}} {
		if _, account, err := s.Index.ServedRecord(t.Context(), missing); !errors.Is(err, store.ErrNotFound) || account != index.AccountActive {
			t.Errorf("%s: %q %v", missing, account, err)
		}
	}
	if _, account, err := s.Index.ServedRecord(t.Context(), record.URI{DID: bob, Collection: note, RKey: "a"}); err != nil || account != "" {
		t.Errorf("unknown repo: %q %v", account, err)
	}

	b.again()
	set := settlement(alice, rev(2))
	set.Account = index.AccountSuspended
	b.owe(alice)
	b.must(func(done func(error)) error { return s.Work.Settle(t.Context(), b.job.Seq, set, done) })
	if rec, account, err := s.Index.ServedRecord(t.Context(), uri); err != nil || account != index.AccountSuspended || rec.RKey != "" {
		t.Errorf("record of a suspended account: %v %q %v", rec.URI(), account, err)
	}
	if list, account, _, err := servedPage(t.Context(), s, page); err != nil || account != index.AccountSuspended || len(list) != 0 {
		t.Errorf("page of a suspended account: %v %q %v", list, account, err)
	}
}

func TestPagesOfARepoAreWhatItHolds(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	var keys []syntax.RecordKey
	for _, did := range []syntax.DID{alice, bob} {
		var list []index.Listed
		keys = keys[:0]
		for i := range 20 {
			keys = append(keys, syntax.RecordKey(fmt.Sprintf("k%02d", i)))
			list = append(list, listed(t, fmt.Sprintf("k%02d", 19-i), "text"))
		}
		b.mustRead(did, rev(1), segment(note, list...))
	}
	for _, ascending := range []bool{false, true} {
		for _, after := range []syntax.RecordKey{"", "k00", "k07", "k19", "a", "z", "k07!"} {
			for _, limit := range []int{1, 7, 12, 13, 20, 30} {
				p := index.RepoPage{DID: alice, Collection: note, After: after, Ascending: ascending, Limit: limit}
				want := slices.DeleteFunc(slices.Clone(keys), func(k syntax.RecordKey) bool {
					return after != "" && (ascending && k <= after || !ascending && k >= after)
				})
				if !ascending {
					slices.Reverse(want)
				}
				follows := len(want) > limit
				want = want[:min(limit, len(want))]
				served, _, more, err := servedPage(t.Context(), s, p)
				if err != nil || more != follows {
					t.Fatalf("%+v: more %t, %v", p, more, err)
				}
				listed, err := repoRecords(t.Context(), s, p)
				if err != nil {
					t.Fatal(err)
				}
				for _, got := range [][]index.Record{served, listed} {
					if len(got) != len(want) {
						t.Fatalf("%+v: %d records, want %d", p, len(got), len(want))
					}
					for i := range got {
						if got[i].DID != alice || got[i].RKey != want[i] {
							t.Errorf("%+v: %s at %d, want %s", p, got[i].URI(), i, want[i])
						}
					}
				}
			}
		}
	}
}

func TestVersionChangesWithEveryCommitOnly(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	version := func() uint64 {
		v, err := s.Index.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := version()
	if again := version(); again != before {
		t.Errorf("reading makes %d of %d", again, before)
	}
	if err := s.Collections.Track(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	if after := version(); after <= before {
		t.Errorf("a commit makes %d of %d", after, before)
	}
}

func TestReadEndsWhenItsCallerHasEnough(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "c", "3"), listed(t, "b", "2"), listed(t, "a", "1")), segment(other, listed(t, "a", "1")))
	var got []syntax.RecordKey
	upTo := func(n int) func(*index.Record) error {
		got = nil
		return func(r *index.Record) error {
			if got = append(got, r.RKey); len(got) == n {
				return fmt.Errorf("after %d: %w", n, index.ErrStop)
			}
			return nil
		}
	}
	page := index.RepoPage{DID: alice, Collection: note, Limit: 10}
	for name, read := range map[string]func(each func(*index.Record) error) (more bool, err error){
		"repo": func(each func(*index.Record) error) (bool, error) {
			return s.Index.RepoRecords(t.Context(), page, each)
		},
		"served": func(each func(*index.Record) error) (bool, error) {
			_, more, err := s.Index.ServedPage(t.Context(), page, each)
			return more, err
		},
		"newest": func(each func(*index.Record) error) (bool, error) {
			next, err := s.Index.Newest(t.Context(), note, 0, 10, each)
			return next != 0, err
		},
		"by key": func(each func(*index.Record) error) (bool, error) {
			next, err := s.Index.ByKey(t.Context(), note, nil, 10, each)
			return next != nil, err
		},
	} {
		for n := 1; n <= 4; n++ {
			more, err := read(upTo(n))
			if want := []syntax.RecordKey{"c", "b", "a"}[:min(n, 3)]; err != nil || more != (n < 3) || !slices.Equal(got, want) {
				t.Errorf("%s, %d records: %v, more %t, %v", name, n, got, more, err)
			}
		}
	}
	if err := s.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, upTo(2)); err != nil || len(got) != 2 {
		t.Errorf("export: %v, %v", got, err)
	}
}
