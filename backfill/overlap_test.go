package backfill_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
)

// TestHostsAreReadWhileResultsAreCommitted holds up the commit of one repo's result until
// another repo is asked for: one of the same host, which was not in the queue when the host's
// sweep began, or one of another host, for which there is no other slot.
func TestHostsAreReadWhileResultsAreCommitted(t *testing.T) {
	t.Parallel()
	for name, hosts := range map[string]int{"the same host": 1, "the next host": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantReadDuringCommit(t, hosts)
		})
	}
}

func wantReadDuringCommit(t *testing.T, hosts int) {
	t.Helper()
	var (
		first, second           atomic.Value // "settle …" and "move …" of the repos
		settling, moved, waited atomic.Bool
		inQueue                 = make(chan struct{}) // the second repo is
		asked                   = newGate()           // for the second repo
		once                    sync.Once
		requests                atomic.Int64 // for the first repo's status
	)
	first.Store("")
	second.Store("")
	hooks := store.Hooks{
		Making: func(op string) {
			settling.Store(settling.Load() || op == first.Load())
			moved.Store(moved.Load() || op == second.Load())
		},
		BeforeCommit: func() error {
			if !settling.Load() || waited.Swap(true) {
				return nil
			}
			select {
			case <-asked.held:
				return nil
			case <-time.After(patience / 4):
				return errors.New("the second repo is not asked for before the first is committed")
			}
		},
		AfterCommit: func() error {
			if moved.Load() {
				once.Do(func() { close(inQueue) })
			}
			return nil
		},
	}
	r := newRigWith(t, sandbox.Config{Seed: 71, Repos: 2, Hosts: hosts, Collections: statuses(2, 2)}, options{
		store: store.Config{Hooks: hooks}, config: backfill.Config{MaxHosts: 1, Turn: patience},
	})
	close(asked.opened)
	dids := inOrder(r.world)
	begun := newGate() // the reading of the first repo
	close(begun.opened)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part == sandbox.PartPLC && strings.Contains(q.DID, dids[1].String()):
			<-begun.held
		case q.Part == sandbox.PartPDS && q.DID == dids[0].String():
			if q.Method == repoStatus {
				requests.Add(1)
			}
			begun.wait()
			<-inQueue
		case q.Part == sandbox.PartPDS && q.DID == dids[1].String():
			asked.wait()
		}
		return sandbox.Fault{}
	})
	second.Store("move " + dids[1].String())
	first.Store("settle " + dids[0].String())
	r.complete(jobs.Request{Collection: status})
	if !waited.Load() {
		t.Error("no commit was held up")
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("the first repo was probed %d times", n)
	}
	r.wantTruth(status)
}

// TestRepoIsReadAgainThoughItsHostHasLostItsSlot has the only repo of a host fail, and
// another host take the slot while that is being committed: the repo is not forgotten.
func TestRepoIsReadAgainThoughItsHostHasLostItsSlot(t *testing.T) {
	t.Parallel()
	var (
		postponement, move               atomic.Value // "postpone …" of the first repo, "move …" of the second
		postponing, moved, waited, fails atomic.Bool
		postponed, inQueue               = make(chan struct{}), make(chan struct{})
		once, onceMoved                  sync.Once
		asked                            = newGate() // for the second repo
	)
	postponement.Store("")
	move.Store("")
	hooks := store.Hooks{
		Making: func(op string) {
			postponing.Store(postponing.Load() || op == postponement.Load())
			moved.Store(moved.Load() || op == move.Load())
		},
		BeforeCommit: func() error {
			if !postponing.Load() || waited.Swap(true) {
				return nil
			}
			select {
			case <-asked.held:
				return nil
			case <-time.After(patience / 4):
				return errors.New("the second host does not get the slot")
			}
		},
		AfterCommit: func() error {
			if moved.Load() {
				onceMoved.Do(func() { close(inQueue) })
			}
			if waited.Load() {
				once.Do(func() { close(postponed) })
			}
			return nil
		},
	}
	r := newRigWith(t, sandbox.Config{Seed: 77, Repos: 2, Hosts: 2, Collections: statuses(2, 2)}, options{
		store: store.Config{Hooks: hooks}, config: backfill.Config{MaxHosts: 1, Turn: patience},
	})
	close(asked.opened)
	dids := inOrder(r.world)
	begun := newGate() // the reading of the first repo
	close(begun.opened)
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part == sandbox.PartPLC && q.DID == dids[1].String():
			<-begun.held
		case q.Part == sandbox.PartPDS && q.DID == dids[0].String():
			begun.wait()
			<-inQueue
			if !fails.Swap(true) {
				return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError}
			}
		case q.Part == sandbox.PartPDS && q.DID == dids[1].String():
			asked.wait()
			<-postponed
		}
		return sandbox.Fault{}
	})
	move.Store("move " + dids[1].String())
	postponement.Store("postpone " + dids[0].String())
	job := r.complete(jobs.Request{Collection: status})
	if job.Reasons["exact"] != 2 || !waited.Load() || r.world.Faults("sick") != 1 {
		t.Errorf("after %d faults: %+v", r.world.Faults("sick"), job)
	}
}
