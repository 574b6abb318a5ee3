package backfill_test

import (
	"errors"
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
		store: store.Config{Hooks: hooks}, config: backfill.Config{MaxHosts: 1},
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
