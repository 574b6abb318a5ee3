package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/internal/record"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const (
	pageLen  = 8 << 10
	metaPage = 0x04
)

// populated makes a file with every kind of page and of row, and returns its bytes.
func populated(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "whole.db")
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	for i := range 40 {
		did := syntax.DID(fmt.Sprintf("did:plc:%024d", i))
		var list []index.Listed
		for k := 40; k > 0; k-- {
			list = append(list, listed(t, fmt.Sprintf("3k%011d", k), fmt.Sprintf("%d of %d", k, i)))
		}
		b.mustRead(did, rev(i+1), segment(note, list...), segment(other, list[:3]...))
	}
	if err := s.Collections.Track(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	if err := s.Admin.PutAPIKey(t.Context(), "hv_secret", admin.APIKey{ID: uuid.New(), Name: "k", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collections.DeleteRecords(t.Context(), index.Filter{DID: "did:plc:000000000000000000000007"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []syntax.NSID{note, other} {
		if _, err := s.Index.IndexKeys(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	b.again()
	b.owe(alice)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := newestMeta(data)
	return data[:pages*pageLen] // the rest is nothing
}

// newestMeta is the number of pages in use or free, and the page that lists the free
// ones.
func newestMeta(data []byte) (pages, freelist int) {
	newest := data[:pageLen]
	if binary.NativeEndian.Uint64(data[pageLen+64:]) > binary.NativeEndian.Uint64(data[64:]) {
		newest = data[pageLen : 2*pageLen]
	}
	return int(binary.NativeEndian.Uint64(newest[16+40:])), int(binary.NativeEndian.Uint64(newest[16+32:]))
}

func freelistOf(data []byte) int { _, list := newestMeta(data); return list }

// kinds are the pages that are in use, by kind.
func kinds(t *testing.T, data []byte) map[string][]int {
	t.Helper()
	pages, freelist := newestMeta(data)
	free := map[int]bool{}
	list := data[pageLen*freelist:]
	for i := range int(binary.NativeEndian.Uint16(list[10:])) {
		free[int(binary.NativeEndian.Uint64(list[16+8*i:]))] = true
	}
	got := map[string][]int{}
	for id := range pages {
		name := map[uint16]string{1: "branch", 2: "leaf", metaPage: "meta", 16: "freelist"}[binary.NativeEndian.Uint16(data[pageLen*id+8:])]
		if !free[id] {
			got[name] = append(got[name], id)
		}
	}
	for _, name := range []string{"branch", "leaf", "meta", "freelist"} {
		if len(got[name]) == 0 {
			t.Fatalf("no %s page among %d: the test tests too little", name, pages)
		}
	}
	return got
}

// everything is what the store answers, by what can be proved.
func everything(t *testing.T, s *store.Store) (map[string]string, error) {
	t.Helper()
	got := map[string]string{}
	err := s.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, func(r *index.Record) error {
		got[r.URI().String()] = r.Body.CID.String() + " " + string(r.Body.Data)
		return nil
	})
	jobs, errJobs := s.Jobs.List(t.Context())
	for _, j := range jobs {
		got[j.ID.String()] = fmt.Sprint(j.Processed, j.TotalRepos, j.Tally)
	}
	return got, errors.Join(err, errJobs)
}

// use has the store do what a server does, and returns what went wrong.
func use(t *testing.T, s *store.Store) error {
	t.Helper()
	_, err := everything(t, s)
	_, errTracked := s.Collections.Tracked(t.Context())
	_, errKeys := s.Admin.APIKeys(t.Context())
	_, errStats := s.Stats(t.Context())
	_, _, errByKey := byKey(t.Context(), s, note, nil, 100)
	job, errCreate := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{}, nil)
	err = errors.Join(err, errTracked, errKeys, errStats, errByKey, errCreate)
	if errCreate == nil {
		for _, did := range []syntax.DID{"did:plc:000000000000000000000020"} {
			_, errFound := s.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "l", DIDs: []syntax.DID{did}})
			done := make(chan error, 1)
			errMove := s.Work.Rehost(t.Context(), job.Seq, did, "", host, func(err error) { done <- err })
			if errMove == nil {
				errMove = <-done
			}
			err = errors.Join(err, errFound, errMove)
			set := settlement(did, rev(900), segment(note, listed(t, "3k", "x")), segment(other))
			if errSettle := s.Work.Settle(t.Context(), job.Seq, set, func(err error) { done <- err }); errSettle == nil {
				err = errors.Join(err, <-done)
			}
		}
	}
	return err
}

// TestFlippedBytesAreNeverAnsweredFrom damages a byte at a time in pages of every
// kind. Whatever comes of it, nothing panics or hangs; what check lets pass answers
// as before; and what it does not either answers or says that it is damaged.
func TestFlippedBytesAreNeverAnsweredFrom(t *testing.T) {
	t.Parallel()
	whole := populated(t)
	var want map[string]string
	{
		path := filepath.Join(t.TempDir(), "whole.db")
		writeAll(t, path, whole)
		var err error
		if want, err = everything(t, storetest.OpenPath(t, path)); err != nil || len(want) < 1000 {
			t.Fatalf("%d answers, %v", len(want), err)
		}
	}
	for kind, pages := range kinds(t, whole) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, uint64(len(kind))))
			caught, refused := 0, 0
			const flips = 40
			for range flips {
				page := pages[rng.IntN(len(pages))]
				// Half of the time where a page says what it is and what it holds.
				at := rng.IntN(pageLen)
				if rng.IntN(2) == 0 {
					at = rng.IntN(16 + 64)
				}
				flip := byte(1) << rng.IntN(8)
				path := filepath.Join(t.TempDir(), "flipped.db")
				data := append([]byte(nil), whole...)
				data[page*pageLen+at] ^= flip
				writeAll(t, path, data)
				what := fmt.Sprintf("%s page %d, byte %d, bit %#x", kind, page, at, flip)

				passed, err := checked(t, path)
				switch {
				case err == nil:
					if kind != "meta" && !maps.Equal(passed, want) {
						t.Errorf("%s: check lets it pass, but it answers differently: %v", what, difference(passed, want))
					}
				case !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrNewer):
					t.Errorf("%s: check says %v", what, err)
				default:
					caught++
				}
				s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
				if err != nil {
					if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrNewer) {
						t.Errorf("%s: open says %v", what, err)
					}
					refused++
					continue
				}
				err = use(t, s)
				select {
				case <-s.Failed():
					refused++
					if !errors.Is(s.Err(), store.ErrDamaged) || !strings.Contains(s.Err().Error(), "restore a backup") {
						t.Errorf("%s: the store failed with %v", what, s.Err())
					}
					if _, err := s.Jobs.List(t.Context()); !errors.Is(err, store.ErrDamaged) {
						t.Errorf("%s: after that it still answers, %v", what, err)
					}
				default:
					// What says that the index is ahead of the host is no lie but a refusal.
					if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, index.ErrRevWentBack) {
						t.Errorf("%s: %v, and the store goes on", what, err)
					}
				}
				if err := s.Close(); err != nil {
					t.Errorf("%s: close: %v", what, err)
				}
			}
			t.Logf("%d of %d found by check, %d met in use", caught, flips, refused)
			if kind != "meta" && caught == 0 {
				t.Error("no flip did any harm: the test tests nothing")
			}
		})
	}
}

// TestPageThatLeadsBackIsRefused has a branch lead to itself, in which bbolt would
// run until the memory is full.
func TestPageThatLeadsBackIsRefused(t *testing.T) {
	t.Parallel()
	data := populated(t)
	for _, id := range kinds(t, data)["branch"] {
		for name, to := range map[string]uint64{"itself": uint64(id), "a meta page": 0, "the list of free pages": uint64(freelistOf(data)), "nowhere": 1 << 40} {
			path := filepath.Join(t.TempDir(), "circle.db")
			bent := append([]byte(nil), data...)
			binary.NativeEndian.PutUint64(bent[id*pageLen+16+8:], to) // where its first element leads
			writeAll(t, path, bent)
			for _, readOnly := range []bool{false, true} {
				if _, err := store.Open(store.Config{Path: path, ReadOnly: readOnly}); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("page %d leads to %s, read-only %t: %v", id, name, readOnly, err)
				}
			}
		}
	}
}

func TestFreePageThatIsInUseIsRefused(t *testing.T) {
	t.Parallel()
	data := populated(t)
	in := kinds(t, data)
	list := data[freelistOf(data)*pageLen:]
	if binary.NativeEndian.Uint16(list[10:]) == 0 {
		t.Fatal("no page is free: the test tests nothing")
	}
	// The first free page becomes one before it that is in use.
	first := binary.NativeEndian.Uint64(list[16:])
	for _, id := range append(in["leaf"], in["branch"]...) {
		if uint64(id) < first {
			binary.NativeEndian.PutUint64(list[16:], uint64(id))
		}
	}
	path := filepath.Join(t.TempDir(), "free.db")
	writeAll(t, path, data)
	if _, err := store.Open(store.Config{Path: path}); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "in use, and listed as free") {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

func TestFileCutWhileItIsOpenStopsTheStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cut.db")
	writeAll(t, path, populated(t))
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3*pageLen); err != nil {
		t.Fatal(err)
	}
	if _, err := everything(t, s); !errors.Is(err, store.ErrDamaged) { // by a fault of the memory, otherwise
		t.Errorf("got %v, want ErrDamaged", err)
	}
	select {
	case <-s.Failed():
	default:
		t.Error("the store goes on")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestOrderThatFitsNoRecordIsRefused changes a row of what orders the records, so that
// every row can be read: a page would lack a record, or have one twice.
func TestOrderThatFitsNoRecordIsRefused(t *testing.T) {
	t.Parallel()
	whole := populated(t)
	newestOf := func(s *store.Store) error { _, _, err := newest(t.Context(), s, note, 0, 2000); return err }
	byKeyOf := func(s *store.Store) error { _, _, err := byKey(t.Context(), s, note, nil, 2000); return err }
	for name, c := range map[string]struct {
		spoil func(tx *bbolt.Tx) error
		read  func(s *store.Store) error
		want  string
	}{
		"log entry of another record": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("log")).Bucket([]byte(note))
			_, other := b.Cursor().First()
			last, _ := b.Cursor().Last()
			return b.Put(bytes.Clone(last), bytes.Clone(other))
		}, newestOf, "in the order of changes"},
		"log entry of no record": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("log")).Bucket([]byte(note))
			last, key := b.Cursor().Last()
			return b.Put(bytes.Clone(last), append(bytes.Clone(key), 'x'))
		}, newestOf, "a record row of 0 bytes"},
		"index entry of no record": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rkeys")).Bucket([]byte(note)).Put([]byte("3k00000000017x\x00\x00\x00\x00\x01"), nil)
		}, byKeyOf, "is in the key index of com.example.note"},
		"key of a record": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("records")).Bucket([]byte(note))
			k, row := b.Cursor().Last()
			k, row = bytes.Clone(k), bytes.Clone(row)
			return errors.Join(b.Delete(k), b.Put(append(k, 'x'), row))
		}, byKeyOf, "is in the key index of com.example.note"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "spoilt.db")
			writeAll(t, path, whole)
			s, err := store.Open(store.Config{Path: path})
			if err == nil {
				err = errors.Join(newestOf(s), byKeyOf(s), s.Close())
			}
			if err != nil {
				t.Fatalf("before: %v", err)
			}
			change(t, path, c.spoil)
			if s, err = store.Open(store.Config{Path: path}); err != nil {
				t.Fatal(err)
			}
			if err := c.read(s); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrDamaged with %q", err, c.want)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRepoThatIsNotTheOneAskedForIsRefused has a DID lead to another repo, or to none, or
// has the row of a repo name another DID: records would be shown as those of another
// account, changed and deleted.
func TestRepoThatIsNotTheOneAskedForIsRefused(t *testing.T) {
	t.Parallel()
	const did = syntax.DID("did:plc:000000000000000000000020")
	whole := populated(t)
	leadTo := func(n string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte("dids")).Put([]byte(did), []byte(n)) }
	}
	uri := record.URI{DID: did, Collection: note, RKey: "3k00000000007"}
	page := index.RepoPage{DID: did, Collection: note, Limit: 1}
	pass := func(*index.Record) error { return nil }
	reads := map[string]func(s *store.Store) error{
		"record":  func(s *store.Store) error { _, _, err := s.Index.ServedRecord(t.Context(), uri); return err },
		"page":    func(s *store.Store) error { _, _, err := s.Index.ServedPage(t.Context(), page, pass); return err },
		"records": func(s *store.Store) error { _, err := s.Index.RepoRecords(t.Context(), page, pass); return err },
		"one":     func(s *store.Store) error { _, err := s.Index.Record(t.Context(), uri); return err },
		"repo":    func(s *store.Store) error { _, err := s.Index.Repo(t.Context(), did); return err },
		"export": func(s *store.Store) error {
			return s.Index.Export(t.Context(), index.Filter{DID: did}, func(uint64) error { return nil }, pass)
		},
		"delete": func(s *store.Store) error {
			_, err := s.Collections.DeleteRecords(t.Context(), index.Filter{DID: did})
			return err
		},
	}
	for name, n := range map[string]string{
		"another repo": "\x00\x00\x00\x11", "no repo": "\x00\x00\x40\x15", "no number": "", "half a number": "\x00\x15",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, whole, leadTo(n), reads)
		})
	}
	t.Run("another DID in the row", func(t *testing.T) {
		t.Parallel()
		all := maps.Clone(reads)
		all["newest"] = func(s *store.Store) error { _, _, err := newest(t.Context(), s, note, 0, 2000); return err }
		all["by key"] = func(s *store.Store) error { _, _, err := byKey(t.Context(), s, note, nil, 2000); return err }
		all["export of all"] = func(s *store.Store) error {
			return s.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, pass)
		}
		wantRefused(t, whole, func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("repos"))
			key := []byte("\x00\x00\x00\x15")
			row := bytes.Replace(b.Get(key), []byte(did), []byte("did:plc:000000000000000000000022"), 1)
			if bytes.Equal(row, b.Get(key)) {
				t.Error("the row does not name the DID: the test tests nothing")
			}
			return b.Put(key, row)
		}, all)
	})
}

// TestJobThatIsNotTheOneAskedForIsRefused has the id of a job lead to another one, or to
// none: another than that which was named would be shown, or stopped.
func TestJobThatIsNotTheOneAskedForIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for range 2 {
		job, err := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{}, []syntax.NSID{note})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reads := map[string]func(s *store.Store) error{
		"job": func(s *store.Store) error { _, err := s.Jobs.Job(t.Context(), ids[1]); return err },
		"jobs": func(s *store.Store) error {
			return s.Jobs.EachJob(t.Context(), ids[1], func(jobs.Job) bool { return true })
		},
		"cancel": func(s *store.Store) error {
			_, err := s.Jobs.MoveJob(t.Context(), ids[1], api.StatusCancelling)
			return err
		},
		"retry": func(s *store.Store) error {
			if _, err := s.Jobs.RetryJob(t.Context(), ids[1], uuid.New()); !errors.Is(err, jobs.ErrMove) {
				return err
			}
			return nil
		},
	}
	t.Run("unfinished", func(t *testing.T) {
		t.Parallel()
		wantRefused(t, whole, func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("unfinished"))
			k, row := b.Cursor().Last()
			return errors.Join(b.Delete(k), b.Put([]byte("\x00\x00\x00\x00\x00\x00\x00\x06"), row))
		}, map[string]func(s *store.Store) error{
			"unfinished": func(s *store.Store) error { _, err := s.Jobs.Unfinished(t.Context()); return err },
		})
	})
	for name, n := range map[string]string{
		"another job": "\x00\x00\x00\x00\x00\x00\x00\x01", "no job": "\x00\x00\x00\x00\x00\x00\x00\x06", "no number": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, whole, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("job_ids")).Put(ids[1][:], []byte(n)) }, reads)
		})
	}
}

// wantRefused wants each of reads to work on a file, and to find it damaged once spoil
// has changed it.
func wantRefused(t *testing.T, whole []byte, spoil func(tx *bbolt.Tx) error, reads map[string]func(s *store.Store) error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spoilt.db")
	for name, read := range reads {
		for _, spoilt := range []bool{false, true} {
			writeAll(t, path, whole)
			if spoilt {
				change(t, path, spoil)
			}
			s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			err = read(s)
			switch {
			case !spoilt && err != nil:
				t.Fatalf("%s: before: %v", name, err)
			case spoilt && !errors.Is(err, store.ErrDamaged):
				t.Errorf("%s: got %v, want ErrDamaged", name, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestIndexEntryOfTheRecordOfAnotherIsRefused changes entries of the key index in their
// pages into such that stand for records which have entries of their own: these would be
// handed on twice, and others not.
func TestIndexEntryOfTheRecordOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	whole := populated(t)
	entry := []byte("3k00000000017\x00\x00\x00\x00\x15")
	for _, other := range []string{
		"3k00000000017\x00\x00\x00\x00\x14", "3k00000000017\x00\x00\x00\x00\x11", "3k00000000017\x00\x00\x00\x00\x16", "3k00000000016\x00\x00\x00\x00\x15",
	} {
		bent := bytes.ReplaceAll(whole, entry, []byte(other))
		if bytes.Equal(bent, whole) {
			t.Fatal("the entry is not there: the test tests nothing")
		}
		path := filepath.Join(t.TempDir(), "bent.db")
		writeAll(t, path, bent)
		s, err := store.Open(store.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if list, _, err := byKey(t.Context(), s, note, nil, 2000); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("as %q: %d records, %v, want ErrDamaged", other, len(list), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPanicOfACallerIsNoDamage(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	newBench(t, s).mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	func() {
		defer func() {
			if got := recover(); got != "mine" {
				t.Errorf("recovered %v", got)
			}
		}()
		_ = s.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, func(*index.Record) error { panic("mine") })
	}()
	wantRecords(t, s, 1)
}

func writeAll(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// change changes a file that no store has open.
func change(t *testing.T, path string, do func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(do), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checked checks a file and returns what it answers.
func checked(t *testing.T, path string) (map[string]string, error) {
	t.Helper()
	s, err := store.Open(store.Config{Path: path, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	if err = s.Check(t.Context()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	got, err := everything(t, s)
	return got, errors.Join(err, s.Close())
}

// difference lists what two maps do not share.
func difference(a, b map[string]string) (list []string) {
	for k, v := range a {
		if b[k] != v {
			list = append(list, k+" = "+v)
		}
	}
	for k, v := range b {
		if a[k] != v {
			list = append(list, "not "+k+" = "+v)
		}
	}
	return list
}
