package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/internal/api"
)

// AccountDenied is the status of an account that is on our own deny list.
const AccountDenied = "denied"

// ErrDenied says that a repo, or its host, is on the deny list.
var ErrDenied = errors.New("on the deny list")

// Denial is an entry of the deny list: a DID, or the name of a host (with its port
// if it is not the usual one), that is never read, stored or served.
type Denial struct {
	Entry   string    `json:"-"`
	Reason  string    `json:"reason,omitempty"`
	AddedAt time.Time `json:"added_at"`
}

var denials = table[Denial]{name: "denylist", version: 1, fill: fillSpread}

// denyStep bounds the repos looked at in one transaction of enforce.
const denyStep = 5_000

// denied are the entries of the deny list.
type denied map[string]struct{}

// has tells whether a repo or the host at a URL is denied.
func (d denied) has(did syntax.DID, host string) bool {
	if len(d) == 0 {
		return false
	}
	if _, ok := d[string(did)]; ok {
		return true
	}
	if host == "" {
		return false
	}
	u, err := url.Parse(host)
	if err != nil {
		return false
	}
	_, whole := d[u.Host]
	_, name := d[u.Hostname()]
	return whole || name
}

// loadDenied brings denied to what is in the file.
func (s *Store) loadDenied(tx *bbolt.Tx) error {
	d := denied{}
	err := denials.eachKey(denials.bucket(tx), func(k []byte) error {
		d[string(k)] = struct{}{}
		return nil
	})
	if err == nil {
		s.denied.Store(&d)
	}
	return err
}

// Denied tells whether a repo, or its host, is on the deny list. An empty host is
// not known yet.
func (s *Store) Denied(did syntax.DID, host string) bool { return s.denied.Load().has(did, host) }

// Denials returns the deny list, in order.
func (s *Store) Denials(ctx context.Context) (list []Denial, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return denials.bucket(tx).ForEach(func(k, row []byte) error {
			d, err := denials.decode(k, row)
			if err != nil {
				return fmt.Errorf("denial of %s: %w", k, err)
			}
			d.Entry = string(k)
			list = append(list, d)
			return nil
		})
	})
	return list, err
}

// Deny puts an entry on the deny list, hides what is stored of it at once, and
// deletes it. An account is hidden with the entry, what lives at a host after it.
func (s *Store) Deny(ctx context.Context, entry, reason string) error {
	var hidden []byte
	err := s.do(ctx, "deny "+entry, func(g *group) error {
		hidden = nil
		if err := denials.put(denials.bucket(g.tx), []byte(entry), Denial{Reason: reason, AddedAt: g.now}); err != nil {
			return err
		}
		did := syntax.DID(entry)
		_, stored, err := ridOf(g.tx, did)
		if stored {
			hidden, err = g.hide(did)
		}
		if err != nil {
			return err
		}
		return g.note(ctx, Event{Action: api.ActDeny, Target: entry, Detail: reason})
	})
	if err == nil {
		err = s.readDenied(context.WithoutCancel(ctx)) // what is in the file counts, whoever has gone
	}
	if err == nil {
		err = s.enforce(ctx)
	}
	if err == nil && hidden != nil {
		_, err = s.purge(ctx, hidden)
	}
	return err
}

// Allow takes an entry off the deny list, or fails with ErrNotFound. What it stood
// for comes back with the next job that reads it.
func (s *Store) Allow(ctx context.Context, entry string) error {
	err := s.do(ctx, "allow "+entry, func(g *group) error {
		b := denials.bucket(g.tx)
		if b.Get([]byte(entry)) == nil {
			return refuse(fmt.Errorf("denial of %s: %w", entry, ErrNotFound))
		}
		if err := b.Delete([]byte(entry)); err != nil {
			return err
		}
		return g.note(ctx, Event{Action: api.ActAllow, Target: entry})
	})
	if err == nil {
		err = s.readDenied(context.WithoutCancel(ctx)) // what is in the file counts, whoever has gone
	}
	return err
}

// readDenied does the same again. Whoever has changed what is in the file calls it: the
// last one finds the changes of all, in whatever order they were committed.
func (s *Store) readDenied(ctx context.Context) error {
	s.denying.Lock()
	defer s.denying.Unlock()
	return s.view(ctx, s.loadDenied)
}

// enforce hides and deletes everything that is held of denied repos and hosts. It
// goes over all repos, so that one that a crash has cut off is made up for at the
// next start.
func (s *Store) enforce(ctx context.Context) error {
	if len(*s.denied.Load()) == 0 {
		return nil
	}
	var purges [][]byte
	for from, done := []byte(nil), false; !done; {
		var step [][]byte
		next := from
		err := s.wait(ctx, change{op: "enforce the deny list", urgent: true, apply: func(g *group) error {
			step, next = nil, nil
			dids, at, err := g.deniedRepos(*s.denied.Load(), from)
			if err != nil {
				return err
			}
			for _, did := range dids {
				id, err := g.hide(did)
				if err != nil {
					return err
				}
				step = append(step, id)
			}
			next = at
			return nil
		}})
		if err != nil {
			return err
		}
		purges = append(purges, step...)
		from, done = next, next == nil
	}
	for _, id := range purges {
		if _, err := s.purge(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// deniedRepos looks at some repos from the given one on, and returns those that
// are denied and not yet dealt with, and where to go on.
func (g *group) deniedRepos(d denied, from []byte) (dids []syntax.DID, next []byte, err error) {
	c, looked := repos.bucket(g.tx).Cursor(), 0
	for k, row := c.Seek(from); k != nil; k, row = c.Next() {
		if looked == g.bound(denyStep) {
			return dids, bytes.Clone(k), nil
		}
		looked++
		r, err := repos.decode(k, row)
		if err != nil {
			return nil, nil, fmt.Errorf("repo %x: %w", k, err)
		}
		if d.has(r.DID, r.Host) && (r.Account != AccountDenied || r.holds(nil)) {
			dids = append(dids, r.DID)
		}
	}
	return dids, nil, nil
}

// hide stops serving a repo, and notes that its records are to be deleted.
func (g *group) hide(did syntax.DID) (id []byte, err error) {
	r, err := g.repo(did)
	if err != nil {
		return nil, err
	}
	r.repo.Account = AccountDenied
	if err := r.save(); err != nil {
		return nil, err
	}
	return g.addPurge(Filter{DID: did}, nil) // a part of the denial, not an action of its own
}

// DenialOf brings what a user calls an account or a host into the form in which
// the deny list holds it.
func DenialOf(text string) (string, error) {
	if strings.HasPrefix(text, "did:") {
		did, err := syntax.ParseDID(text)
		return did.String(), err
	}
	u, err := url.Parse("//" + strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://"))
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("%q is neither a DID nor the name of a host", text)
	}
	return strings.ToLower(u.Host), nil
}
