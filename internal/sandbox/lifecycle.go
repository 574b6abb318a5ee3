package sandbox

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Deactivate hides an account as its owner does. Activate brings it back with
// the records and the rev that it had.
func (w *World) Deactivate(did syntax.DID) error { return w.setStatus(did, StatusDeactivated) }

// TakeDown hides an account as its host's moderators do.
func (w *World) TakeDown(did syntax.DID) error { return w.setStatus(did, StatusTakendown) }

// Suspend hides an account as its host's moderators do for a time.
func (w *World) Suspend(did syntax.DID) error { return w.setStatus(did, StatusSuspended) }

// Activate brings back an account that was deactivated, taken down or suspended.
func (w *World) Activate(did syntax.DID) error { return w.setStatus(did, StatusActive) }

func (w *World) setStatus(did syntax.DID, status Status) error {
	a, err := w.account(did)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == StatusDeleted {
		return fmt.Errorf("make %s %s: it was deleted: %w", did, status, ErrInactive)
	}
	a.status = status
	w.observer.Load().changed(a, EventAccount)
	return nil
}

// DeleteAccount removes an account and its records from its host, which then
// says RepoNotFound. The DID stays registered until Tombstone.
func (w *World) DeleteAccount(did syntax.DID) error {
	a, err := w.account(did)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.head, a.shelves = StatusDeleted, nil, make(map[syntax.NSID]*shelf)
	w.observer.Load().changed(a, EventAccount)
	return nil
}

// Tombstone ends a DID: the PLC directory answers 410 from then on. The host is
// not told.
func (w *World) Tombstone(did syntax.DID) error {
	a, err := w.account(did)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tombstoned = true
	w.observer.Load().changed(a, EventIdentity)
	return nil
}

// Move takes an active account with its records to another host, with a new
// signing key, a new commit and a new DID document. The old host keeps saying
// that the account is deactivated.
func (w *World) Move(did syntax.DID, hostURL string) error {
	a, err := w.account(did)
	if err != nil {
		return err
	}
	to, err := w.host(hostURL)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status != StatusActive {
		return fmt.Errorf("move %s, which is %s: %w", did, a.status, ErrInactive)
	}
	if a.host == to {
		return fmt.Errorf("move %s: it is at %s already", did, hostURL)
	}
	watching := w.observer.Load()
	if _, err = watching.before(a); err != nil {
		return fmt.Errorf("move %s: %w", did, err)
	}
	left, err := a.makeHead()
	if err != nil {
		return fmt.Errorf("move %s: %w", did, err)
	}
	_, returns := a.former[to]
	delete(a.former, to)
	goodbye := a.event(EventAccount)
	goodbye.Status = StatusDeactivated
	a.former[a.host], a.host = left, to
	a.key, a.keyTurn, a.document, a.head = nil, a.keyTurn+1, nil, nil
	a.setClock(to.counts.Load())
	a.rev = a.clock.next()
	if !returns {
		to.admit(a) // a host lists an account once, however often it comes
	}
	if watching == nil {
		return nil
	}
	watching.changed(a, EventIdentity, EventAccount)
	err = watching.committed(a, EventCommit, left, nil)
	watching.tell(goodbye)
	return err
}

// CountRevs makes a host count the revs of who moves there from now on, from the lowest
// on, as arroba does: they are no times.
func (w *World) CountRevs(hostURL string) error {
	h, err := w.host(hostURL)
	if err != nil {
		return err
	}
	h.counts.Store(true)
	return nil
}

// setClock begins to count, or to tell the time again. The caller holds mu for writing.
func (a *account) setClock(counts bool) {
	if a.counts = counts; counts {
		a.clock = clock{id: a.clock.id}
		return
	}
	a.clock.skipTo(WorldStart + worldSpan)
}

// AddRepo makes a new active account without records at a host; with an empty
// hostURL at the next one in turn. The relay lists it from now on.
func (w *World) AddRepo(hostURL string) (syntax.DID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) >= maxRepos {
		return "", errors.New("add a repo: the world is full")
	}
	h := w.hosts[len(w.order)%len(w.hosts)]
	if hostURL != "" {
		var err error
		if h, err = w.host(hostURL); err != nil {
			return "", err
		}
	}
	watching, born := w.observer.Load(), WorldStart+worldSpan
	if watching != nil {
		born = max(born, watching.now().UnixMicro())
	}
	a := newAccount(w.cfg.Seed, len(w.order), h, born)
	a.mu.Lock()
	defer a.mu.Unlock()
	watching.changed(a, EventIdentity, EventAccount)
	if err := watching.committed(a, EventCommit, nil, nil); err != nil {
		return "", err
	}
	return w.admit(a), nil
}

// Forget makes the relay forget a repo: no listing names it any more. Remember
// undoes it.
func (w *World) Forget(did syntax.DID) { w.directory.forget(did, true) }

// Remember undoes Forget.
func (w *World) Remember(did syntax.DID) { w.directory.forget(did, false) }
