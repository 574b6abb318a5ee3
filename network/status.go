package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	methodRepoStatus   = "com.atproto.sync.getRepoStatus"
	methodLatestCommit = "com.atproto.sync.getLatestCommit"

	maxStatusBody = 64 << 10
	// maxRevAhead is how far a revision may lie in the future: clocks differ, and
	// a day is more than they do by accident.
	maxRevAhead = 24 * time.Hour
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

// Reason is how an inactive account is settled; empty for an active one.
func (s RepoStatus) Reason() Reason {
	switch {
	case s.Active:
		return ""
	case s.Status == StatusTakendown:
		return ReasonTakenDown
	case s.Status == StatusSuspended:
		return ReasonSuspended
	case s.Status == StatusDeleted:
		return ReasonDeleted
	case s.Status == "desynchronized", s.Status == "throttled":
		return ReasonBadAnswer // of the host, not of the account: it will pass
	default:
		return ReasonDeactivated
	}
}

// RepoStatus asks a host for an account's status and revision. An account that
// is not active is an answer, not an error. Where the host has no getRepoStatus,
// or it gives no revision, getLatestCommit is asked.
func (c *Client) RepoStatus(ctx context.Context, host Host, did syntax.DID) (RepoStatus, error) {
	st, err := c.repoStatus(ctx, host, did)
	if e, ok := errors.AsType[*Error](err); ok {
		if status, inactive := inactiveStatus(e); inactive {
			return RepoStatus{Status: status}, nil
		}
		if !e.missing() {
			return RepoStatus{}, err
		}
	} else if err != nil || !st.Active || st.Rev != "" {
		return st, err
	}
	return c.latestCommit(ctx, host, did)
}

func (c *Client) repoStatus(ctx context.Context, host Host, did syntax.DID) (RepoStatus, error) {
	var out statusAnswer
	if err := c.ask(ctx, methodRepoStatus, host, did, &out); err != nil {
		return RepoStatus{}, err
	}
	return c.readStatus(host, did, out)
}

// statusAnswer is the answer of getRepoStatus.
type statusAnswer struct {
	DID    string  `json:"did"`
	Active *bool   `json:"active"`
	Status string  `json:"status"`
	Rev    *string `json:"rev"`
}

func (c *Client) readStatus(host Host, did syntax.DID, out statusAnswer) (RepoStatus, error) {
	if out.DID != did.String() || out.Active == nil {
		return RepoStatus{}, badAnswer(methodRepoStatus, host, fmt.Errorf("no status of this repo, but of %.100q", out.DID))
	}
	if !*out.Active {
		return RepoStatus{Status: cut(out.Status)}, nil
	}
	if out.Rev == nil || *out.Rev == "" {
		return RepoStatus{Active: true}, nil
	}
	rev, err := c.rev(methodRepoStatus, host, *out.Rev)
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
		if e.missing() {
			e.Reason = ReasonNoRev
		}
	}
	if err != nil {
		return RepoStatus{}, err
	}
	if out.Rev == "" {
		return RepoStatus{}, &Error{Op: methodLatestCommit, Host: host, Reason: ReasonNoRev, Err: errors.New("no rev in it")}
	}
	rev, err := c.rev(methodLatestCommit, host, out.Rev)
	return RepoStatus{Active: true, Rev: rev}, err
}

// ask asks a sync method about a repo and decodes the small answer.
func (c *Client) ask(ctx context.Context, method string, host Host, did syntax.DID, out any) error {
	a, err := c.fetch(ctx, call{
		op: method, host: host, limit: maxStatusBody, subject: did.String(),
		target: xrpc(method, url.Values{"did": {did.String()}}),
	})
	if err != nil {
		return err
	}
	defer a.release()
	if !shallow(a.body) {
		return badAnswer(method, host, errors.New("not json, or nested too deeply"))
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return badAnswer(method, host, err)
	}
	return nil
}

// rev checks a revision: one that is no TID orders nothing, and one from the
// future would freeze the repo until then.
func (c *Client) rev(op string, host Host, s string) (syntax.TID, error) {
	rev, err := syntax.ParseTID(s)
	if err != nil {
		return "", &Error{Op: op, Host: host, Reason: ReasonBadRev, Err: err}
	}
	if at := rev.Time(); at.After(c.cfg.Now().Add(maxRevAhead)) {
		return "", &Error{Op: op, Host: host, Reason: ReasonBadRev, Err: fmt.Errorf("%s is in the future: %s", rev, at.UTC().Format(time.RFC3339))}
	}
	return rev, nil
}

// inactiveStatus reads the refusals that are a status.
func inactiveStatus(e *Error) (string, bool) {
	switch e.Reason {
	case ReasonDeactivated:
		return StatusDeactivated, true
	case ReasonTakenDown:
		return StatusTakendown, true
	case ReasonSuspended:
		return StatusSuspended, true
	case ReasonDeleted:
		return StatusDeleted, true
	default:
		return "", false
	}
}
