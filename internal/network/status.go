package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/repo"
	"appview/internal/network/transport"
	"appview/internal/record"
)

const (
	methodRepoStatus   = "com.atproto.sync.getRepoStatus"
	methodLatestCommit = "com.atproto.sync.getLatestCommit"

	maxStatusBody = 64 << 10
)

// Statuses of an inactive account, as getRepoStatus names them.
const (
	StatusDeactivated = "deactivated"
	StatusTakendown   = "takendown"
	StatusSuspended   = "suspended"
	StatusDeleted     = "deleted"
)

// RepoStatus is a host's word on one account.
type RepoStatus struct {
	Active bool
	Status string     // why it is not active, as the host names it; empty when active
	Rev    syntax.TID // the repo's revision; set when active
}

// Reason is how an inactive account is settled; empty for an active one. One that is
// not active, for a reason that is none or not known, is deactivated.
func (s RepoStatus) Reason() outcome.Reason {
	if s.Active {
		return ""
	}
	return cmp.Or(transport.StateReason(s.Status), outcome.ReasonDeactivated)
}

// Unusual is the host's word for an inactive account where it is none of the lexicon's;
// empty where it is.
func (s RepoStatus) Unusual() string {
	switch s.Status {
	case StatusDeactivated, StatusTakendown, StatusSuspended, StatusDeleted:
		return ""
	default:
		return s.Status
	}
}

// RepoStatus asks a host for an account's status and revision. An account that
// is not active is an answer, not an error. Where the host has no getRepoStatus,
// or it gives no revision, getLatestCommit is asked. Where both are refused without a
// word about the account, it is outcome.ReasonNotFound if the host answers one of the two for
// another account, and outcome.ReasonNoRev if not.
func (c *Client) RepoStatus(ctx context.Context, host Host, did syntax.DID) (RepoStatus, error) {
	st, err := c.repoStatus(ctx, host, did)
	first, refused := errors.AsType[*Error](err)
	switch {
	case refused:
		if status, inactive := inactiveStatus(first); inactive {
			return RepoStatus{Status: status}, nil
		}
		if !first.NoSuchMethod() {
			return RepoStatus{}, err
		}
	case err != nil || !st.Active || st.Rev != "":
		return st, err
	}
	st, err = c.latestCommit(ctx, host, did)
	second, ok := errors.AsType[*Error](err)
	if !ok || !second.NoSuchMethod() {
		return st, err
	}
	second.Reason = outcome.ReasonNoRev
	if !refused {
		return st, err // the account is there: the host has just said so
	}
	for _, e := range []*Error{first, second} {
		if err := c.inferNotFound(ctx, host, did, e); err != nil {
			return RepoStatus{}, err
		}
	}
	return st, err
}

func (c *Client) repoStatus(ctx context.Context, host Host, did syntax.DID) (RepoStatus, error) {
	var out statusAnswer
	if err := c.ask(ctx, methodRepoStatus, host, did, &out); err != nil {
		return RepoStatus{}, err
	}
	st, err := c.readStatus(ctx, host, did, out)
	if err == nil {
		c.samples.add(host, questionStatus, did)
	}
	return st, err
}

// statusAnswer is the answer of getRepoStatus.
type statusAnswer struct {
	DID    string  `json:"did"`
	Active *bool   `json:"active"`
	Status string  `json:"status"`
	Rev    *string `json:"rev"`
}

func (c *Client) readStatus(ctx context.Context, host Host, did syntax.DID, out statusAnswer) (RepoStatus, error) {
	inactive := transport.StateReason(out.Status) != ""
	if out.DID != did.String() || out.Active == nil && !inactive {
		return RepoStatus{}, badAnswer(methodRepoStatus, host, fmt.Errorf("no status of this repo, but of %.100q", out.DID))
	}
	if out.Active == nil || !*out.Active {
		return RepoStatus{Status: outcome.OneLine(out.Status)}, nil
	}
	if out.Rev == nil || *out.Rev == "" {
		return RepoStatus{Active: true}, nil
	}
	rev, err := c.rev(ctx, methodRepoStatus, host, *out.Rev)
	return RepoStatus{Active: true, Rev: rev}, err
}

func (c *Client) latestCommit(ctx context.Context, host Host, did syntax.DID) (RepoStatus, error) {
	var out struct {
		Rev string `json:"rev"`
	}
	err := c.ask(ctx, methodLatestCommit, host, did, &out)
	if e, ok := errors.AsType[*Error](err); ok {
		if status, inactive := inactiveStatus(e); inactive {
			return RepoStatus{Status: status}, nil
		}
	}
	if err != nil {
		return RepoStatus{}, err
	}
	if out.Rev == "" {
		return RepoStatus{}, &Error{Op: methodLatestCommit, Host: host, Reason: outcome.ReasonNoRev, Err: errors.New("no rev in it")}
	}
	rev, err := c.rev(ctx, methodLatestCommit, host, out.Rev)
	if err == nil {
		c.samples.add(host, questionCommit, did)
	}
	return RepoStatus{Active: true, Rev: rev}, err
}

// statusRequest asks for the revision and the status of a repo, which not every host answers.
func statusRequest(method string, host Host, did syntax.DID) transport.Request {
	q := newRequest(method, host, did.String(), xrpc(method, url.Values{"did": {did.String()}}), maxStatusBody)
	q.Optional = true
	return q
}

// ask asks a sync method about a repo and decodes the small answer.
func (c *Client) ask(ctx context.Context, method string, host Host, did syntax.DID, out any) error {
	a, err := c.fetch(ctx, statusRequest(method, host, did))
	if err != nil {
		return err
	}
	defer a.Release()
	if !record.IsShallow(a.Body) {
		return badAnswer(method, host, errors.New("not json, or nested too deeply"))
	}
	if err := json.Unmarshal(a.Body, out); err != nil {
		return badAnswer(method, host, err)
	}
	return nil
}

// rev checks a revision that a host has named.
func (c *Client) rev(ctx context.Context, op string, host Host, s string) (syntax.TID, error) {
	rev, err := repo.ParseRev(s, c.cfg.Now())
	if err != nil {
		return "", c.repoError(ctx, op, host, err)
	}
	return rev, nil
}

// inactiveStatus reads the refusals that are a status.
func inactiveStatus(e *Error) (string, bool) {
	switch e.Reason {
	case outcome.ReasonDeactivated:
		return StatusDeactivated, true
	case outcome.ReasonTakenDown:
		return StatusTakendown, true
	case outcome.ReasonSuspended:
		return StatusSuspended, true
	case outcome.ReasonDeleted:
		return StatusDeleted, true
	default:
		return "", false
	}
}
