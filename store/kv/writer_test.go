package kv_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/store/kv"
)

func TestCommitsAreMeasured(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []kv.Commit
	db := open(t, kv.Config{Path: newPath(t), Observe: func(c kv.Commit) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c)
	}})
	for _, k := range []string{"a", "b", "c"} {
		if err := db.Do(t.Context(), byUser(put(k))); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	changes := 0
	for _, c := range seen {
		if c.Took <= 0 || c.Changes <= 0 || c.Bytes < 0 {
			t.Errorf("got %+v", c)
		}
		changes += c.Changes
	}
	if changes != 3 {
		t.Errorf("%d changes were measured, 3 were made", changes)
	}
}

func TestFailedCommitStopsTheWriter(t *testing.T) {
	t.Parallel()
	crash := errors.New("the disk is on fire")
	var armed atomic.Bool
	path := newPath(t)
	db := openDB(t, kv.Config{Path: path, Hooks: kv.Hooks{BeforeCommit: func() error {
		if armed.Load() {
			return crash
		}
		return nil
	}}})
	if err := db.Do(t.Context(), byUser(put("a"))); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := db.Do(t.Context(), byUser(put("b"))); !errors.Is(err, crash) {
		t.Errorf("the failed commit says %v", err)
	}
	select {
	case <-db.Failed():
	case <-time.After(10 * time.Second):
		t.Fatal("the writer does not say that it failed")
	}
	armed.Store(false)
	if err := db.Do(t.Context(), byUser(put("c"))); !errors.Is(err, crash) {
		t.Errorf("a later write says %v, want the failure", err)
	}
	unanswered := errors.New("never answered")
	last := unanswered
	if err := db.Close(kv.Change{Op: "last", Apply: put("d").Apply, Done: func(err error) { last = err }}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(last, crash) {
		t.Errorf("the last change says %v, want the failure", last)
	}
	// What was committed before is whole, and nothing of the failed commit is there.
	wantRows(t, open(t, kv.Config{Path: path}), "a")
}

// onADisk opens a file on a disk with as much room as is said.
func onADisk(t *testing.T, hooks kv.Hooks) (*kv.DB, *atomic.Uint64) {
	t.Helper()
	free := new(atomic.Uint64)
	free.Store(1 << 40)
	return open(t, kv.Config{
		Path: newPath(t), FreeSpace: func(string) (uint64, error) { return free.Load(), nil }, Hooks: hooks,
	}), free
}

func TestFullDiskMakesWorkWaitAndUsersTold(t *testing.T) {
	t.Parallel()
	db, free := onADisk(t, kv.Hooks{})
	free.Store(1)
	done := submit(t, db, put("a"))
	soon(t, "the full disk is noticed", db.DiskFull)
	select {
	case err := <-done:
		t.Fatalf("written to a full disk: %v", err)
	default:
	}
	if err := db.Do(t.Context(), byUser(put("b"))); !errors.Is(err, kv.ErrDiskFull) {
		t.Errorf("a user is told %v, want ErrDiskFull", err)
	}
	if err := db.Do(t.Context(), endingWork(put("c"))); err != nil {
		t.Errorf("work cannot be ended on a full disk: %v", err)
	}
	wantRows(t, db, "c")
	free.Store(1 << 40)
	if err := <-done; err != nil {
		t.Errorf("after there is room: %v", err)
	}
	wantRows(t, db, "a", "c")
	if db.DiskFull() {
		t.Error("the disk still counts as full")
	}
}

// TestDiskIsLookedAtThoughNothingIsWritten has the disk fill, and room made again, while
// nobody writes.
func TestDiskIsLookedAtThoughNothingIsWritten(t *testing.T) {
	t.Parallel()
	db, free := onADisk(t, kv.Hooks{})
	for _, full := range []bool{false, true, false} {
		free.Store(1 << 40)
		if full {
			free.Store(1)
		}
		if db.DiskFull() != full {
			t.Errorf("the disk counts as full: %t, want %t", !full, full)
		}
	}
}

// TestWorkIsEndedWhateverWaitsForAFullDisk has as much queued as may be, and somebody
// wait who brings more.
func TestWorkIsEndedWhateverWaitsForAFullDisk(t *testing.T) {
	t.Parallel()
	db, free := onADisk(t, kv.Hooks{})
	free.Store(1)
	done := make(chan error, 2)
	for _, k := range []string{"a", "b"} {
		c := put(k)
		c.Bytes, c.Done = 60<<20, func(err error) { done <- err }
		go func() {
			if err := db.Submit(t.Context(), c); err != nil {
				done <- err
			}
		}()
	}
	soon(t, "somebody waits", func() bool { return db.DiskFull() && db.AwaitsRoom() })
	ended := make(chan error, 1)
	go func() { ended <- db.Do(t.Context(), endingWork(put("c"))) }()
	select {
	case err := <-done:
		t.Fatalf("written to a full disk: %v", err)
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("work cannot be ended on a full disk")
	}
	free.Store(1 << 40)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	wantRows(t, db, "a", "b", "c")
}

// TestNobodyIsLeftWithoutAnAnswer closes a file while a change waits that has
// overtaken the others, since the disk was full.
func TestNobodyIsLeftWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for round := range 10 { // which of the two the writer sees first is a matter of luck
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			hangs, released := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			db, free := onADisk(t, kv.Hooks{BeforeCommit: func() error {
				if armed.CompareAndSwap(true, false) {
					close(hangs)
					<-released
				}
				return nil
			}})
			t.Cleanup(release)
			armed.Store(true)
			first, second, closed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { first <- db.Do(t.Context(), byUser(put("a"))) }()
			<-hangs
			free.Store(1)
			db.CheckDisk()
			go func() { second <- db.Do(t.Context(), endingWork(put("b"))) }()
			soon(t, "it is queued", func() bool { return db.Queued() > 0 })
			go func() { closed <- db.Close() }()
			soon(t, "no more is taken", db.Closed)
			release()
			if err := errors.Join(<-closed, <-first); err != nil {
				t.Error(err)
			}
			select {
			case err := <-second:
				if err != nil {
					t.Errorf("work is not ended: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("nobody is told whether work is ended")
			}
		})
	}
}

func TestRefusedChangeDoesNotHoldUpItsGroup(t *testing.T) {
	t.Parallel()
	db := open(t, kv.Config{Path: newPath(t), FlushEvery: time.Hour})
	stale := errors.New("no longer owed")
	first := submit(t, db, put("a"))
	refused := submit(t, db, kv.Change{Op: "refuse", Apply: func(*kv.Tx) error { return kv.Refuse(stale) }})
	if err := db.Do(t.Context(), byUser(put("b"))); err != nil { // flushes the group
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-refused; !errors.Is(err, stale) {
		t.Errorf("refused: %v, want %v", err, stale)
	}
	wantRows(t, db, "a", "b")
}

func TestCloseCommitsWhatIsQueued(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	db := openDB(t, kv.Config{Path: path, FlushEvery: time.Hour})
	outcomes := make(chan error, 3)
	done := func(err error) { outcomes <- err }
	for _, k := range []string{"a", "b"} {
		c := put(k)
		c.Done = done
		if err := db.Submit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-outcomes:
		t.Fatalf("committed before its time: %v", err)
	default:
	}
	last := put("last")
	last.Done = done
	if err := db.Close(last); err != nil {
		t.Fatal(err)
	}
	for range cap(outcomes) {
		if err := <-outcomes; err != nil {
			t.Error(err)
		}
	}
	wantRows(t, open(t, kv.Config{Path: path}), "a", "b", "last")
}

// TestChangeDoneInPartGoesOnInTheNextTransaction wants its rest made first, and its
// result to be that of the transaction that ends it.
func TestChangeDoneInPartGoesOnInTheNextTransaction(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64
	db := open(t, kv.Config{Path: newPath(t), Hooks: kv.Hooks{BeforeCommit: func() error { commits.Add(1); return nil }}})
	calls := 0
	got, err := kv.Write(t.Context(), db, kv.Change{Op: "in steps", Urgent: true}, func(tx *kv.Tx) (int, error) {
		calls++
		if err := rows.Put(rows.Bucket(tx), []byte(strconv.Itoa(calls)), ""); err != nil {
			return 0, err
		}
		if calls < 3 {
			return -1, kv.ErrAgain
		}
		return calls, nil
	})
	if err != nil || got != 3 || commits.Load() != 3 {
		t.Errorf("%d after %d commits, %v", got, commits.Load(), err)
	}
	wantRows(t, db, "1", "2", "3")
	refused := errors.New("not this one")
	got, err = kv.Write(t.Context(), db, kv.Change{Op: "refused", Urgent: true}, func(*kv.Tx) (int, error) { return 7, kv.Refuse(refused) })
	if got != 0 || !errors.Is(err, refused) {
		t.Errorf("a refused change has the result %d, %v", got, err)
	}
}

// TestLocalIsSavedOnceAGroup has two changes of one group share what is kept in memory,
// and the next group begin with what was saved.
func TestLocalIsSavedOnceAGroup(t *testing.T) {
	t.Parallel()
	type counter struct {
		tx *kv.Tx
		n  uint64
	}
	begun, saved := 0, 0
	counters := &kv.Local[counter]{
		Begin: func(tx *kv.Tx) (*counter, error) {
			begun++
			if tx.Bucket([]byte("meta")).Get([]byte("n")) == nil {
				return &counter{tx: tx}, nil
			}
			n, err := tx.Meta("n")
			return &counter{tx, n}, err
		},
		Save: func(c *counter) error {
			saved++
			return c.tx.PutMeta("n", c.n)
		},
	}
	add := kv.Change{Op: "add", Apply: func(tx *kv.Tx) error {
		c, err := counters.In(tx)
		if err == nil {
			c.n++
		}
		return err
	}}
	db := open(t, kv.Config{Path: newPath(t), FlushEvery: time.Hour})
	first := submit(t, db, add)
	if err := errors.Join(db.Do(t.Context(), byUser(add)), <-first); err != nil {
		t.Fatal(err)
	}
	if begun != 1 || saved != 1 {
		t.Errorf("begun %d times and saved %d times in one group", begun, saved)
	}
	if err := errors.Join(db.Do(t.Context(), byUser(put("a"))), db.Do(t.Context(), byUser(add))); err != nil {
		t.Fatal(err)
	}
	n, err := kv.Read(context.WithoutCancel(t.Context()), db, func(tx *kv.Tx) (uint64, error) { return tx.Meta("n") })
	if err != nil || n != 3 || begun != 2 {
		t.Errorf("counted %d in %d groups, %v", n, begun, err)
	}
}
