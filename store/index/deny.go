package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

// ErrDenied says that a repo, or its host, is on the deny list.
var ErrDenied = errors.New("on the deny list")

// Denial is an entry of the deny list: a DID, or the name of a host (with its port
// if it is not the usual one), that is never read, stored or served.
type Denial struct {
	Entry   string    `json:"-"`
	Reason  string    `json:"reason,omitempty"`
	AddedAt time.Time `json:"added_at"`
}

var denials = kv.Table[Denial]{Name: "denylist", Version: 1, Fill: kv.FillSpread}

// denyStep bounds the repos looked at in one transaction of enforce.
const denyStep = 5_000

// denied are the entries of the deny list.
type denied map[string]struct{}

// has reports whether a repo or the host at a URL is denied.
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
func (x *Index) loadDenied(tx *kv.Tx) error {
	d := denied{}
	err := denials.EachKey(denials.Bucket(tx), func(k []byte) error {
		d[string(k)] = struct{}{}
		return nil
	})
	if err == nil {
		x.denied.Store(&d)
	}
	return err
}

// Denied reports whether a repo, or its host, is on the deny list. An empty host is
// not known yet.
func (x *Index) Denied(did syntax.DID, host string) bool { return x.denied.Load().has(did, host) }

// Denials returns the deny list, in order.
func (x *Index) Denials(ctx context.Context) ([]Denial, error) {
	return kv.Read(ctx, x.db, func(tx *kv.Tx) (list []Denial, err error) {
		err = denials.Bucket(tx).ForEach(func(k, row []byte) error {
			d, err := denials.Decode(k, row)
			if err != nil {
				return fmt.Errorf("denial of %s: %w", k, err)
			}
			d.Entry = string(k)
			list = append(list, d)
			return nil
		})
		return list, err
	})
}

// Deny puts an entry on the deny list, hides what is stored of it at once, and
// deletes it. An account is hidden with the entry, what lives at a host after it.
func (x *Index) Deny(ctx context.Context, entry, reason string) error {
	hidden, err := writeInteractive(ctx, x, "deny "+entry, func(g *group) (hidden []byte, err error) {
		if err := denials.Put(denials.Bucket(g.tx), []byte(entry), Denial{Reason: reason, AddedAt: g.tx.Now}); err != nil {
			return nil, err
		}
		did := syntax.DID(entry)
		_, stored, err := ridOf(g.tx, did)
		if stored {
			hidden, err = x.hide(g, did)
		}
		if err != nil {
			return nil, err
		}
		return hidden, admin.Note(ctx, g.tx, admin.Event{Action: api.ActDeny, Target: entry, Detail: reason})
	})
	if err == nil {
		err = x.readDenied(context.WithoutCancel(ctx)) // what is in the file counts, whoever has gone
	}
	if err == nil {
		err = x.enforce(ctx)
	}
	if err == nil && hidden != nil {
		_, err = x.FinishDelete(ctx, hidden)
	}
	return err
}

// Allow takes an entry off the deny list, or fails with kv.ErrNotFound. What it stood
// for comes back with the next job that reads it.
func (x *Index) Allow(ctx context.Context, entry string) error {
	_, err := writeInteractive(ctx, x, "allow "+entry, func(g *group) (struct{}, error) {
		b := denials.Bucket(g.tx)
		if b.Get([]byte(entry)) == nil {
			return struct{}{}, kv.Refuse(fmt.Errorf("denial of %s: %w", entry, kv.ErrNotFound))
		}
		if err := b.Delete([]byte(entry)); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, admin.Note(ctx, g.tx, admin.Event{Action: api.ActAllow, Target: entry})
	})
	if err == nil {
		err = x.readDenied(context.WithoutCancel(ctx)) // what is in the file counts, whoever has gone
	}
	return err
}

// readDenied does the same again. Whoever has changed what is in the file calls it: the
// last one finds the changes of all, in whatever order they were committed.
func (x *Index) readDenied(ctx context.Context) error {
	x.denying.Lock()
	defer x.denying.Unlock()
	return x.db.View(ctx, x.loadDenied)
}

// enforce hides and deletes everything that is held of denied repos and hosts. It
// goes over all repos, so that one that a crash has cut off is made up for at the
// next start.
func (x *Index) enforce(ctx context.Context) error {
	if len(*x.denied.Load()) == 0 {
		return nil
	}
	var begun [][]byte
	for from, done := []byte(nil), false; !done; {
		step, err := write(ctx, x, "enforce the deny list", func(g *group) (enforced, error) {
			return x.enforceSome(g, from)
		})
		if err != nil {
			return err
		}
		begun = append(begun, step.begun...)
		from, done = step.next, step.next == nil
	}
	for _, id := range begun {
		if _, err := x.FinishDelete(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// enforced is a step of enforce: the deletions that it has begun, and where to go on.
type enforced struct {
	begun [][]byte
	next  []byte
}

func (x *Index) enforceSome(g *group, from []byte) (step enforced, err error) {
	dids, next, err := g.deniedRepos(*x.denied.Load(), from)
	if err != nil {
		return step, err
	}
	for _, did := range dids {
		id, err := x.hide(g, did)
		if err != nil {
			return step, err
		}
		step.begun = append(step.begun, id)
	}
	step.next = next
	return step, nil
}

// deniedRepos looks at some repos from the given one on, and returns those that
// are denied and not yet dealt with, and where to go on.
func (g *group) deniedRepos(d denied, from []byte) (dids []syntax.DID, next []byte, err error) {
	c, looked := repos.Bucket(g.tx).Cursor(), 0
	for k, row := c.Seek(from); k != nil; k, row = c.Next() {
		if looked == g.tx.Bound(denyStep) {
			return dids, bytes.Clone(k), nil
		}
		looked++
		r, err := repos.Decode(k, row)
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
func (x *Index) hide(g *group, did syntax.DID) (id []byte, err error) {
	if _, err := x.Apply(g.tx, Change{DID: did, Account: AccountDenied}); err != nil {
		return nil, err
	}
	return BeginDelete(g.tx, Filter{DID: did}, nil) // a part of the denial, not an action of its own
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
