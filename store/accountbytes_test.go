package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// takes is what the account of alice takes of the file.
func (b *bench) takes() int64 {
	b.t.Helper()
	repo, err := b.s.Index.Repo(b.t.Context(), alice)
	if err != nil {
		b.t.Fatal(err)
	}
	return repo.Bytes
}

// bounded reads a repo, and opens the store again with a bound that lets the account
// take as much as it does and so many bytes more. The repo is owed to a new job.
func bounded(t *testing.T, more int64, hooks store.Hooks, held ...index.Segment) *bench {
	t.Helper()
	cfg := store.Config{Path: filepath.Join(t.TempDir(), "appview.db")}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	b.mustRead(alice, rev(1), held...)
	cfg.MaxAccountBytes, cfg.Hooks = b.takes()+more, hooks
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = storetest.OpenConfig(t, cfg)
	b.again()
	b.owe(alice)
	return b
}

// wantTooLarge wants the job's one repo to be failed for that, counted once, and the index
// to serve what it did.
func (b *bench) wantTooLarge(serves map[string]string, takes int64) {
	b.t.Helper()
	if got := b.row(); got.Processed != 1 || got.Failed != 1 || len(got.Reasons) != 1 || got.Reasons["too_large"] != 1 {
		b.t.Errorf("the job: %d settled, %d failed: %v", got.Processed, got.Failed, got.Reasons)
	}
	if d := difference(export(b.t, b.s), serves); len(d) > 0 {
		b.t.Errorf("what is served has changed: %v", d)
	}
	if got := b.takes(); got != takes {
		b.t.Errorf("it takes %d bytes, want %d", got, takes)
	}
	list, _, err := b.s.Jobs.JobRepos(b.t.Context(), b.job.Seq, "", 2, nil)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Detail, "--max-account-bytes") {
		b.t.Errorf("the report says %+v, %v", list, err)
	}
}

// TestAccountPastTheBoundIsLeftAsItIs reads, in each way there is, a repo of which some
// records are new and others gone. One byte too many, and nothing of it is written or
// deleted; with that byte, all of it is. Deletions take many transactions.
func TestAccountPastTheBoundIsLeftAsItIs(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	held := segment(note, listed(t, "d", "1"), listed(t, "c", "1"), listed(t, "b", "1"))
	now := segment(note, listed(t, "z", "1"), listed(t, "d", "2"))
	// A row of 23 bytes, a CID, a body and a checksum; a log entry and one of the key index.
	z := now.Records[0]
	adds := int64(16+5+23+z.Body.CID.ByteLen()+len(z.Body.Data)+4) + int64(16+8+5) + int64(16+6)
	for name, read := range map[string]func(*bench) error{
		"on one page": func(b *bench) error { return b.settle(settlement(alice, rev(2), now)) },
		"at its end, after a step": func(b *bench) error {
			b.step(rev(2), segment(note, now.Records[1]))
			return b.settle(settlement(alice, rev(2), segment(note, now.Records[0])))
		},
		"in a step": func(b *bench) error {
			_, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, index.Reading{Host: host, Rev: rev(2), Segments: []index.Segment{now}}, jobs.Position{
				First: rev(2), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "more"}},
			})
			if errors.Is(err, index.ErrAccountFull) {
				gave := jobs.Settlement{DID: alice, Reading: index.Reading{Host: host}, Verdict: jobs.Verdict{Class: jobs.ClassFailed, Reason: "too_large", Detail: err.Error()}}
				return b.settle(gave)
			}
			return errors.Join(err, b.settle(settlement(alice, rev(2), segment(note))))
		},
	} {
		for _, step := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, %d rows in a transaction", name, step), func(t *testing.T) {
				t.Parallel()
				b := bounded(t, adds, store.Hooks{Step: step}, held)
				if err := read(b); err != nil {
					t.Fatal(err)
				}
				if got := b.row(); got.Failed != 0 || got.Tally.Deleted != 2 || got.Tally.Created != 1 {
					t.Errorf("with room for it: %+v", got)
				}
				b = bounded(t, adds-1, store.Hooks{Step: step}, held)
				serves, takes := export(t, b.s), b.takes()
				if name == "at its end, after a step" { // the step itself makes it no larger
					b.step(rev(2), segment(note, now.Records[1]))
					serves = export(t, b.s)
				}
				if err := read(b); err != nil {
					t.Fatal(err)
				}
				b.wantTooLarge(serves, takes)
			})
		}
	}
}

// step saves a step of a reading.
func (b *bench) step(at syntax.TID, seg index.Segment) {
	b.t.Helper()
	_, err := b.s.Work.Save(b.t.Context(), b.job.Seq, alice, index.Reading{Host: host, Rev: at, Segments: []index.Segment{seg}}, jobs.Position{
		First: at, Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "more"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestAccountPastALoweredBound has an account that takes more than one may. What makes it
// no larger is written: what is unchanged, updates of the same size or less, deletions.
func TestAccountPastALoweredBound(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	held := []index.Listed{listed(t, "c", "long"), listed(t, "b", "long"), listed(t, "a", "long")}
	for name, c := range map[string]struct {
		now  []index.Listed
		full bool
	}{
		"unchanged":                {now: held},
		"an update of the size":    {now: []index.Listed{listed(t, "c", "gnol"), held[1], held[2]}},
		"an update that is less":   {now: []index.Listed{listed(t, "c", "l"), held[1], held[2]}},
		"one less for one more":    {now: []index.Listed{listed(t, "c", "longe"), listed(t, "b", "lon"), held[2]}},
		"an update that is more":   {now: []index.Listed{listed(t, "c", "longer"), held[1], held[2]}, full: true},
		"another record":           {now: append([]index.Listed{listed(t, "d", "")}, held...), full: true},
		"deletions":                {now: held[:1]},
		"deletions, and a new one": {now: []index.Listed{listed(t, "d", "")}, full: true}, // what goes makes no room
		"nothing":                  {},
	} {
		for _, steps := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in steps %t", name, steps), func(t *testing.T) {
				t.Parallel()
				b := bounded(t, -100, store.Hooks{}, segment(note, held...))
				serves, takes := export(t, b.s), b.takes()
				if steps {
					b.step(rev(2), segment(note, held[2]))
				}
				if err := b.settle(settlement(alice, rev(2), segment(note, c.now...))); err != nil {
					t.Fatal(err)
				}
				if c.full {
					b.wantTooLarge(serves, takes)
					return
				}
				if b.row().Failed != 0 || b.takes() > takes {
					t.Errorf("the job: %+v; it takes %d bytes, before %d", b.row(), b.takes(), takes)
				}
			})
		}
	}
}

// TestAccountThatComesBackFullIsServed has an account that was hidden come back with more
// than it may take.
func TestAccountThatComesBackFullIsServed(t *testing.T) {
	t.Parallel()
	for _, steps := range []bool{false, true} {
		b := bounded(t, 10, store.Hooks{}, segment(note, listed(t, "a", "1")))
		serves, takes := export(t, b.s), b.takes()
		b.mustSettle(jobs.Settlement{
			DID: alice, Reading: index.Reading{Host: host}, Account: index.AccountDeactivated,
			Verdict: jobs.Verdict{Class: jobs.ClassUnavailable},
		})
		wantRecords(t, b.s, 0)
		b.again()
		b.owe(alice)
		read := settlement(alice, rev(2), segment(note, listed(t, "b", "1"), listed(t, "a", "1")))
		if steps {
			if _, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, read.Reading, jobs.Position{First: rev(2)}); !errors.Is(err, index.ErrAccountFull) {
				t.Errorf("the step: %v, want ErrAccountFull", err)
			}
			if d := difference(export(t, b.s), serves); len(d) > 0 {
				t.Errorf("after the step: %v", d)
			}
		}
		b.mustSettle(read)
		b.wantTooLarge(serves, takes)
	}
}

// TestListingOfWhatIsRejectedIsBounded has a host list, in steps, more and more that is
// not held: it is marked, which takes room too.
func TestListingOfWhatIsRejectedIsBounded(t *testing.T) {
	t.Parallel()
	b := bounded(t, 10_000, store.Hooks{}, segment(note, listed(t, "a", "1")))
	at := jobs.Position{First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "more"}}}
	for n := range 100 {
		var seg index.Segment
		for k := range 4 {
			seg.Rejected = append(seg.Rejected, syntax.RecordKey(fmt.Sprintf("%0512d", 10*n+k)))
		}
		seg.Collection = note
		_, err := b.s.Work.Save(t.Context(), b.job.Seq, alice, index.Reading{Host: host, Rev: rev(1), Segments: []index.Segment{seg}}, at)
		if errors.Is(err, index.ErrAccountFull) {
			if want := 10_000 / (4 * (16 + 512 + 4)); n != want {
				t.Errorf("%d steps were taken, want %d", n, want)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("there is no end to it")
}

// TestDeletionGivesBackWhatWasTaken deletes the records of accounts in each way there is.
// What is left of their size are the notes of it, and these for as long as they are kept.
// Check holds every size against the rows, whenever a test ends.
func TestDeletionGivesBackWhatWasTaken(t *testing.T) {
	t.Parallel()
	records := []index.Listed{{RKey: "b", Body: textBody(t, strings.Repeat("x", 3000))}, listed(t, "a", "1")}
	for name, remove := range map[string]func(*world, *bench) error{
		"an administrator": func(w *world, _ *bench) error {
			_, err := w.s.Collections.DeleteRecords(t.Context(), index.Filter{DID: alice})
			return err
		},
		"the deny list": func(w *world, _ *bench) error { return w.s.Index.Deny(t.Context(), string(alice), "") },
		"a listing": func(_ *world, b *bench) error {
			b.owe(alice)
			return b.settle(settlement(alice, rev(3), segment(note)))
		},
		"the account's end": func(_ *world, b *bench) error {
			b.owe(alice)
			return b.settle(jobs.Settlement{
				DID: alice, Reading: index.Reading{Host: host}, Account: "deleted", Purge: true,
				Verdict: jobs.Verdict{Class: jobs.ClassUnavailable},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStoreWorld(t)
			b := newBench(t, w.s)
			b.mustRead(alice, rev(1), segment(note, records...))
			full := b.takes()
			b.again()
			if err := remove(w, b); err != nil {
				t.Fatal(err)
			}
			empty := full - 3000
			if _, err := w.s.Index.IndexKeys(t.Context(), note); err != nil {
				t.Fatal(err)
			}
			noted := b.takes()
			if noted >= empty {
				t.Errorf("it takes %d bytes with its records, %d without", full, noted)
			}
			w.at(31 * 24)
			w.prune()
			names := b.takes()
			if got := noted - names; got != 2*(16+8+16+5) {
				t.Errorf("%d bytes are given back for two notes", got)
			}
			if names != 7*int64(16+len(note))+256 {
				t.Errorf("%d bytes are left", names)
			}
		})
	}
}

// textBody is a record with a text.
func textBody(tb testing.TB, text string) record.Body {
	tb.Helper()
	data := append([]byte{0xa1, 0x61, 'x'}, 0x79, byte(len(text)>>8), byte(len(text)))
	if len(text) < 24 {
		data = append(data[:3], 0x60+byte(len(text)))
	} else if len(text) < 256 {
		data = append(data[:3], 0x78, byte(len(text)))
	}
	data = append(data, text...)
	hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		tb.Fatal(err)
	}
	return record.Body{CID: cid.NewCidV1(cid.DagCBOR, hash), Verified: true, Data: data}
}

// TestDefaultBoundIsFarFromHonestAccounts has 200,000 records of 2 kB in mind.
func TestDefaultBoundIsFarFromHonestAccounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.mustRead(alice, rev(1), segment(note, index.Listed{RKey: "3kgk4qs6aa22a", Body: textBody(t, strings.Repeat("x", 2000))}))
	if all := b.takes() * 200_000; all > index.DefaultMaxAccountBytes/2 {
		t.Errorf("200,000 such records take %d bytes, of %d that an account may take", all, index.DefaultMaxAccountBytes)
	}
}

// TestOldFileIsSized has a file in which some sizes are wrong or missing, as a program
// leaves it that does not know them, brought up to date in many steps, and over a crash
// between two of them.
func TestOldFileIsSized(t *testing.T) {
	t.Parallel()
	for _, step := range []int{0, 1, 3, 7, 40} {
		path := filepath.Join(t.TempDir(), "appview.db")
		writeAll(t, path, populated(t))
		before := raw(t, path)
		if err := store.Unsize(path, uint64(step)); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Hooks: store.Hooks{Step: step}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Check(t.Context()), s.Close()); err != nil {
			t.Errorf("%d rows in a step: %v", step, err)
		}
		if d := difference(raw(t, path), before); len(d) > 0 {
			t.Errorf("%d rows in a step: %v", step, d)
		}
	}
}
