package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/network/repo"
	"appview/internal/network/transport"
)

const (
	methodGetRepo     = "com.atproto.sync.getRepo"
	methodRecordProof = "com.atproto.sync.getRecord"

	typeCAR = "application/vnd.ipld.car"
)

// Repo is a repo that a host gave. It holds memory of the shared budget, or a file, until
// Close.
type Repo struct {
	*repo.Repo

	From Host // who gave it: another host than was asked after a redirect

	grant polite.Grant
	fail  func(error) error // names what was asked, and whom
}

// Err is why a walk has ended early: a *Parked or the context's error.
func (r *Repo) Err() error {
	if err := r.Repo.Err(); err != nil {
		return r.fail(err)
	}
	return nil
}

// Close gives the repo's memory and its file back. It may be called twice.
func (r *Repo) Close() {
	r.Repo.Close()
	r.grant.Release()
}

// Repo fetches a whole repo and verifies it. Besides the reasons of every
// request it fails with outcome.ReasonBadSignature (another key signed it, or ident has
// none: worth a fresh look-up of the DID), outcome.ReasonBadRev, outcome.ReasonIncomplete
// (blocks are missing, as when the repo changes while it is sent),
// outcome.ReasonTooLarge (past repo.MaxCAR, and then listRecords may do) and outcome.ReasonBadAnswer
// (it is no repo, or another one's).
//
// While the memory of all repos and bodies is taken, the call waits. So whoever
// holds a Repo must not wait for another answer before it is closed.
func (c *Client) Repo(ctx context.Context, host Host, ident Identity) (*Repo, error) {
	account, err := c.account(methodGetRepo, host, ident)
	if err != nil {
		return nil, err
	}
	car := repo.NewCAR(c.cfg.Spool)
	q := repoRequest(host, ident.DID, repo.MaxCAR)
	q.Budget, q.Read = c.repos, c.receive(ctx, host, car)
	a, err := c.fetch(ctx, q)
	if err != nil {
		car.Close()
		return nil, c.notGiven(ctx, host, ident.DID, err)
	}
	r := &Repo{From: a.Host, grant: a.Grant, fail: func(err error) error { return c.repoError(ctx, methodGetRepo, a.Host, err) }}
	r.Repo, err = car.Open(ctx, account, func(n int64) error { return r.grant.Grow(ctx, n) })
	if err != nil {
		car.Close()
		r.grant.Release()
		return nil, r.fail(err)
	}
	c.samples.add(host, questionRepo, ident.DID)
	return r, nil
}

// RecordProof asks for one record with its proof. It fails as Repo does.
func (c *Client) RecordProof(ctx context.Context, host Host, ident Identity, collection syntax.NSID, rkey syntax.RecordKey) (repo.Proof, error) {
	account, err := c.account(methodRecordProof, host, ident)
	if err != nil {
		return repo.Proof{}, err
	}
	car := repo.NewCAR(c.cfg.Spool)
	defer car.Close()
	query := url.Values{"did": {ident.DID.String()}, "collection": {collection.String()}, "rkey": {rkey.String()}}
	q := newRequest(methodRecordProof, host, ident.DID.String(), xrpc(methodRecordProof, query), repo.MaxProof)
	q.Budget, q.Read = c.repos, c.receive(ctx, host, car)
	a, err := c.fetch(ctx, q)
	if err != nil {
		return repo.Proof{}, err
	}
	defer a.Release()
	p, err := car.Prove(ctx, account, func(n int64) error { return a.Grow(ctx, n) }, collection, rkey)
	if err != nil {
		return repo.Proof{}, c.repoError(ctx, methodRecordProof, a.Host, err)
	}
	return p, nil
}

// repoRequest asks for a repo.
func repoRequest(host Host, did syntax.DID, limit int64) transport.Request {
	q := newRequest(methodGetRepo, host, did.String(), xrpc(methodGetRepo, url.Values{"did": {did.String()}}), limit)
	q.Scope, q.Circuit, q.Accept = polite.ScopeRepo, polite.CircuitRepo, typeCAR
	return q
}

// account is what the repo of an identity is verified by.
func (c *Client) account(op string, host Host, ident Identity) (repo.Account, error) {
	key, err := ident.Key()
	if err != nil {
		return repo.Account{}, &Error{Op: op, Host: host, Reason: outcome.ReasonBadSignature, Err: fmt.Errorf("the did document has no key to check it with: %w", err)}
	}
	return repo.Account{DID: ident.DID, Key: key, Now: c.cfg.Now()}, nil
}

// receive reads an answer into a CAR.
func (c *Client) receive(ctx context.Context, host Host, car *repo.CAR) func(io.Reader, transport.Memory) error {
	return func(in io.Reader, m transport.Memory) error {
		err := car.Receive(in, repo.Memory(m))
		if errors.Is(err, repo.ErrSpool) {
			return c.spoolFailed(ctx, host, err)
		}
		return err
	}
}

// repoError is what a repo's error means to whoever asked for it, or for a part of it.
func (c *Client) repoError(ctx context.Context, op string, host Host, err error) error {
	if bad, ok := errors.AsType[*outcome.BadContent](err); ok {
		return &Error{Op: op, Host: host, Reason: bad.Reason, Err: bad.Err}
	}
	if errors.Is(err, repo.ErrSpool) {
		return c.spoolFailed(ctx, host, err)
	}
	return fmt.Errorf("%s at %s: %w", op, host, err)
}

// notGiven is the error of a repo that its host did not give.
func (c *Client) notGiven(ctx context.Context, host Host, did syntax.DID, err error) error {
	refused, ok := errors.AsType[*Error](err)
	if ok {
		if inferred := c.inferNotFound(ctx, host, did, refused); inferred != nil {
			return inferred
		}
	}
	parked, down := errors.AsType[*Parked](err)
	if ok && refused.NothingThere() && refused.Host == host || down && parked.Why == polite.WhyDown && parked.Host == host {
		c.samples.countRefused(host, did)
	}
	return err
}

// spoolPause is how long a repo waits for which there was no room on the disk.
const spoolPause = 30 * time.Second

// spoolFailed is the error of a call that could not write a large repo to a file: nobody's
// failed attempt.
func (c *Client) spoolFailed(ctx context.Context, host Host, err error) error {
	c.cfg.Log.WarnContext(ctx, "a large repo cannot be read", "host", host, "err", err)
	return &Parked{Host: host, Until: c.cfg.Now().Add(spoolPause), Why: polite.WhyDisk}
}
