package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// Rehost moves a repo from the queue of one host to that of another: from the
// empty host when it has been looked up, or from where it has turned out not to
// be any more. What was read at the old host does not count any more. done is
// told the outcome after the commit, and must not wait for anything.
func (s *Work) Rehost(ctx context.Context, seq uint64, did syntax.DID, from, to string, done func(error)) error {
	return s.Place(ctx, seq, did, from, Home{Host: to}, done)
}

// Home is where a look-up has found a repo.
type Home struct {
	Host     string
	Key      string    // of its signatures; empty: it is to be looked up again
	LookedUp time.Time // when the look-up began
}

// Place is Rehost with all that the look-up has found.
func (s *Work) Place(ctx context.Context, seq uint64, did syntax.DID, from string, to Home, done func(error)) error {
	return s.submit(ctx, kv.Change{Op: "move " + did.String(), Bytes: rowBytes, Done: done}, func(g *group) error {
		return g.rehost(seq, did, from, to)
	})
}

// rowBytes estimates a change of a few small rows.
const rowBytes = 256

func (g *group) rehost(seq uint64, did syntax.DID, from string, to Home) error {
	j, w, err := g.open(seq)
	if err != nil {
		return err
	}
	o, err := w.owedAt(from, did)
	if err != nil {
		return err
	}
	if err := w.owed.Delete(owedKey(from, did)); err != nil {
		return err
	}
	if err := w.marks.Forget(did); err != nil {
		return err
	}
	if from == "" {
		j.Unresolved--
		j.work()
	}
	row, err := w.row(o)
	if err != nil {
		return err
	}
	if err := g.tally(j, row, -1); err != nil {
		return err
	}
	row.State, row.Host = RepoOwed, to.Host
	return errors.Join(
		g.tally(j, row, 1),
		w.putOwed(Owed{
			DID: did, Host: to.Host, Key: to.Key, LookedUp: to.LookedUp,
			Moved: from != "" || o.Moved, Again: o.Again, Probe: o.Probe,
		}),
		workRepos.Put(w.repos, []byte(did), row))
}

// row is the row of a repo that is owed.
func (w *workBuckets) row(o Owed) (WorkRepo, error) {
	switch {
	case o.Again:
		return workRepos.Get(w.repos, []byte(o.DID))
	case o.Host == "":
		return WorkRepo{State: RepoFound}, nil
	default:
		return WorkRepo{State: RepoOwed, Host: o.Host}, nil
	}
}

// tally adds n times a repo to the counters of its job and of its host.
func (g *group) tally(j *Job, r WorkRepo, n int64) error {
	j.count(r, n)
	if r.Host == "" {
		return nil
	}
	h, err := g.host(j.Seq, r.Host)
	if err == nil {
		h.count(r, n)
	}
	return err
}

// Postpone notes a failed attempt at a repo and when the next may be made. done
// is told the outcome after the commit, and must not wait for anything.
func (s *Work) Postpone(ctx context.Context, seq uint64, o Owed, done func(error)) error {
	return s.submit(ctx, kv.Change{Op: "postpone " + o.DID.String(), Bytes: rowBytes, Done: done}, func(g *group) error {
		_, w, err := g.open(seq)
		if err != nil {
			return err
		}
		stored, err := w.owedAt(o.Host, o.DID)
		if err != nil {
			return err
		}
		// How far it was read is Save's to say.
		o.Moved, o.Again, o.Position, o.Carry = stored.Moved, stored.Again, stored.Position, stored.Carry
		return w.putOwed(o)
	})
}

// PutHost notes how a host behaves towards a job.
func (s *Work) PutHost(ctx context.Context, seq uint64, host string, b Behaviour) error {
	return s.do(ctx, kv.Change{Op: "note host " + host, Bytes: rowBytes}, func(g *group) error {
		if _, _, err := g.open(seq); err != nil {
			return err
		}
		h, err := g.host(seq, host)
		if err == nil {
			h.Behaviour = b
		}
		return err
	})
}

// host returns a job's row of a host for change; it is written when the group
// ends.
func (g *group) host(seq uint64, host string) (*HostWork, error) {
	w := g.work[seq]
	if h := w.changed[host]; h != nil {
		return h, nil
	}
	h, err := w.host(host)
	if err != nil {
		return nil, err
	}
	if w.changed == nil {
		w.changed = map[string]*HostWork{}
	}
	w.changed[host] = &h
	return &h, nil
}

// host is what the job knows of a host.
func (w *workBuckets) host(host string) (HostWork, error) {
	if h := w.changed[host]; h != nil {
		return *h, nil
	}
	h, err := hostRows.Get(w.hosts, []byte(host))
	if errors.Is(err, kv.ErrNotFound) {
		err = nil
	}
	return h, err
}

// Host returns what the job knows of a host.
func (s *Work) Host(ctx context.Context, seq uint64, host string) (HostWork, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (HostWork, error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return HostWork{}, err
		}
		return w.host(host)
	})
}

// Listing returns how far a listing of the job has been read.
func (s *Work) Listing(ctx context.Context, seq uint64, name string) (Cursor, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (Cursor, error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return Cursor{}, err
		}
		c, err := cursors.Get(w.cursors, []byte(name))
		if errors.Is(err, kv.ErrNotFound) {
			return Cursor{}, nil
		}
		return c, err
	})
}

// Owed returns up to limit repos of a host's queue, in DID order, behind after.
func (s *Work) Owed(ctx context.Context, seq uint64, host string, after syntax.DID, limit int) ([]Owed, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) ([]Owed, error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return nil, err
		}
		return w.queue(host, after, limit)
	})
}

// queue is up to limit repos of a host's queue, in DID order, behind after.
func (w *workBuckets) queue(host string, after syntax.DID, limit int) (list []Owed, err error) {
	start := owedKey(host, after)
	if after != "" {
		start = append(start, 0)
	}
	c := w.owed.Cursor()
	for k, row := c.Seek(start); k != nil && len(list) < limit; k, row = c.Next() {
		h, did, ok := splitOwedKey(k)
		if !ok {
			return nil, fmt.Errorf("%w: queue key %q", kv.ErrRow, k)
		}
		if h != host {
			break
		}
		o, err := owedRows.Decode(k, row)
		if err != nil {
			return nil, fmt.Errorf("queue row %q: %w", k, err)
		}
		o.Host, o.DID = host, did
		list = append(list, o)
	}
	return list, nil
}

// OwedHosts returns the hosts that have a queue, other than that of repos whose
// host is not known.
func (s *Work) OwedHosts(ctx context.Context, seq uint64) ([]string, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (hosts []string, err error) {
		w, err := workOf(tx, seq)
		if err != nil {
			return nil, err
		}
		c := w.owed.Cursor()
		for k, _ := c.Seek(afterHost("")); k != nil; {
			host, _, ok := splitOwedKey(k)
			if !ok {
				return nil, fmt.Errorf("%w: queue key %q", kv.ErrRow, k)
			}
			hosts = append(hosts, host)
			k, _ = c.Seek(afterHost(host))
		}
		return hosts, nil
	})
}
