package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/store"
	"appview/store/storetest"
)

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	storetest.OpenPath(t, path)
	if _, err := store.Open(store.Config{Path: path}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := store.Open(store.Config{Path: path, ReadOnly: readOnly}); !errors.Is(err, store.ErrNewer) {
			t.Errorf("read-only %t: got %v, want ErrNewer", readOnly, err)
		}
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, path string){
		"cut short": func(t *testing.T, path string) {
			t.Helper()
			if err := os.Truncate(path, 3*8192); err != nil {
				t.Fatal(err)
			}
		},
		"no database": func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a few bytes": func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "appview.db")
			s, err := store.Open(store.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			newBench(t, s).mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, path)
			for _, readOnly := range []bool{false, true} {
				if _, err := store.Open(store.Config{Path: path, ReadOnly: readOnly}); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("read-only %t: got %v, want ErrDamaged", readOnly, err)
				}
			}
		})
	}
}

func TestForeignDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := store.Open(store.Config{Path: path, ReadOnly: readOnly}); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("read-only %t: got %v, want ErrDamaged", readOnly, err)
		}
	}
}

func TestReadingWhatIsNotThereMakesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	if _, err := store.Open(store.Config{Path: path, ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Config{Path: path, ReadOnly: true}); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("an empty file: got %v, want ErrDamaged", err)
	}
}

func TestFailedCommitStopsTheStore(t *testing.T) {
	t.Parallel()
	crash := errors.New("the disk is on fire")
	var armed atomic.Bool
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path, Hooks: store.Hooks{BeforeCommit: func() error {
		if armed.Load() {
			return crash
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	b.mustRead(alice, rev(1), segment(note, listed(t, "a", "1")))
	armed.Store(true)
	if _, err := s.MoveJob(t.Context(), b.job.ID, store.StatusCancelling); !errors.Is(err, crash) {
		t.Errorf("the failed commit says %v", err)
	}
	select {
	case <-s.Failed():
	case <-time.After(10 * time.Second):
		t.Fatal("the store does not say that it failed")
	}
	armed.Store(false)
	if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); !errors.Is(err, crash) {
		t.Errorf("a later write says %v, want the failure", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What was committed before is whole, and nothing of the failed commit is there.
	b.s = storetest.OpenPath(t, path)
	if got := b.row(); got.Status != store.StatusRunning {
		t.Errorf("status is %s after the failed commit", got.Status)
	}
	wantRecords(t, b.s, 1)
}

// onADisk opens a store on a disk with as much room as is said.
func onADisk(t *testing.T, hooks store.Hooks) (*store.Store, *atomic.Uint64) {
	t.Helper()
	free := new(atomic.Uint64)
	free.Store(1 << 40)
	return storetest.OpenConfig(t, store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FreeSpace: func(string) (uint64, error) { return free.Load(), nil }, Hooks: hooks,
	}), free
}

func TestFullDiskMakesWorkWaitAndUsersTold(t *testing.T) {
	t.Parallel()
	s, free := onADisk(t, store.Hooks{})
	b := newBench(t, s)
	b.owe(alice)
	free.Store(1)
	done := make(chan error, 1)
	if err := s.Settle(t.Context(), b.job.Seq, settlement(alice, rev(1), segment(note, listed(t, "a", "1"))), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for !s.DiskFull() {
		select {
		case err := <-done:
			t.Fatalf("written to a full disk: %v", err)
		case <-deadline:
			t.Fatal("the full disk is not noticed")
		default:
		}
	}
	if _, err := s.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("a user is told %v, want ErrDiskFull", err)
	}
	if job, err := s.MoveJob(t.Context(), b.job.ID, store.StatusCancelling); err != nil || job.Status != store.StatusCancelling {
		t.Errorf("a job cannot be stopped on a full disk: %+v, %v", job, err)
	}
	wantRecords(t, s, 0)
	free.Store(1 << 40)
	if err := <-done; err != nil {
		t.Errorf("after there is room: %v", err)
	}
	wantRecords(t, s, 1)
	if s.DiskFull() {
		t.Error("the disk still counts as full")
	}
}

// TestJobIsStoppedWhateverWaitsForAFullDisk has as much queued as may be, and somebody
// wait who brings more.
func TestJobIsStoppedWhateverWaitsForAFullDisk(t *testing.T) {
	t.Parallel()
	s, free := onADisk(t, store.Hooks{})
	b := newBench(t, s)
	b.owe(alice)
	free.Store(1)
	large := listed(t, "a", "1")
	large.Body.Data = make([]byte, 60<<20)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			if err := s.Settle(t.Context(), b.job.Seq, settlement(alice, rev(1), segment(note, large)), func(err error) { done <- err }); err != nil {
				done <- err
			}
		}()
	}
	deadline := time.After(30 * time.Second)
	for !s.DiskFull() || !s.Crowded() {
		select {
		case err := <-done:
			t.Fatalf("written to a full disk: %v", err)
		case <-deadline:
			t.Fatal("nobody waits")
		default:
		}
	}
	stopped := make(chan error, 1)
	go func() {
		_, err := s.MoveJob(t.Context(), b.job.ID, store.StatusCancelling)
		if err == nil {
			_, err = s.FinishJob(t.Context(), b.job.Seq, none)
		}
		stopped <- err
	}()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-deadline:
		t.Error("a job cannot be stopped on a full disk")
	}
	free.Store(1 << 40)
	for range 2 {
		if err := <-done; !errors.Is(err, store.ErrStale) {
			t.Errorf("a result for a job that was stopped: %v, want ErrStale", err)
		}
	}
}

// TestNobodyIsLeftWithoutAnAnswer closes a store while a change waits that has
// overtaken the others, since the disk was full.
func TestNobodyIsLeftWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for round := range 10 { // which of the two the writer sees first is a matter of luck
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			hangs, released := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			s, free := onADisk(t, store.Hooks{BeforeCommit: func() error {
				if armed.CompareAndSwap(true, false) {
					close(hangs)
					<-released
				}
				return nil
			}})
			t.Cleanup(release)
			b := newBench(t, s)
			armed.Store(true)
			first, second, closed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { first <- s.Track(t.Context(), note) }()
			<-hangs
			free.Store(1)
			s.Look()
			go func() {
				_, err := s.MoveJob(t.Context(), b.job.ID, store.StatusCancelling)
				second <- err
			}()
			until := func(is func() bool) {
				t.Helper()
				for late := time.Now().Add(30 * time.Second); !is(); {
					if time.Now().After(late) {
						t.Fatal("never")
					}
				}
			}
			until(func() bool {
				l, err := s.Load(t.Context())
				return err == nil && l.Queued > 0
			})
			go func() { closed <- s.Close() }()
			until(s.Closed)
			release()
			if err := errors.Join(<-closed, <-first); err != nil {
				t.Error(err)
			}
			select {
			case err := <-second:
				if err != nil {
					t.Errorf("the job is not stopped: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("nobody is told whether the job is stopped")
			}
		})
	}
}

func TestRefusedChangeDoesNotHoldUpItsGroup(t *testing.T) {
	t.Parallel()
	s := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Hour})
	b := newBench(t, s)
	for _, did := range []syntax.DID{alice, bob} {
		if _, err := s.Discover(t.Context(), b.job.Seq, store.Discovery{Listing: "l", DIDs: []syntax.DID{did}}); err != nil {
			t.Fatal(err)
		}
	}
	outcomes := make(chan error, 3)
	for _, did := range []syntax.DID{alice, "did:plc:nobody", bob} {
		if err := s.Rehost(t.Context(), b.job.Seq, did, "", host, func(err error) { outcomes <- err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil { // flushes the group
		t.Fatal(err)
	}
	for i, want := range []error{nil, store.ErrStale, nil} {
		if err := <-outcomes; !errors.Is(err, want) {
			t.Errorf("change %d: %v, want %v", i, err, want)
		}
	}
}

func TestCloseCommitsWhatIsQueued(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path, FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s)
	if _, err := s.Discover(t.Context(), b.job.Seq, store.Discovery{Listing: "l", DIDs: []syntax.DID{alice, bob}}); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error, 4)
	done := func(err error) { outcomes <- err }
	for _, did := range []syntax.DID{alice, bob} {
		if err := s.Rehost(t.Context(), b.job.Seq, did, "", host, done); err != nil {
			t.Fatal(err)
		}
		if err := s.Settle(t.Context(), b.job.Seq, settlement(did, rev(1), segment(note, listed(t, "a", "1"))), done); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-outcomes:
		t.Fatalf("committed before its time: %v", err)
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range cap(outcomes) {
		if err := <-outcomes; err != nil {
			t.Error(err)
		}
	}
	b.s = storetest.OpenPath(t, path)
	if got := b.row(); got.Processed != 2 {
		t.Errorf("%d repos are settled, want 2", got.Processed)
	}
	wantRecords(t, b.s, 2)
}
