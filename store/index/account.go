package index

import "time"

// Statuses of accounts. Only the records of active ones are served. Stored: never
// rename. The reason why a repo is unavailable is the status of its account; there
// are others than these, which mean that it cannot be found.
const (
	AccountActive      = "active"
	AccountDeactivated = "deactivated"
	AccountTakenDown   = "taken_down"
	AccountSuspended   = "suspended"
	AccountNotFound    = "not_found" // its host does not know it: purged when that stays so
	AccountDenied      = "denied"    // it, or its host, is on our own deny list
)

// setAccount notes what is known of the account, and purges what must not stay.
func (r *repoRow) setAccount(c Change, a *Applied) error {
	if c.Account == "" || r.rid == 0 {
		return nil
	}
	purge, steady := c.Purge, r.g.tx.Steady
	switch {
	case c.Account == AccountNotFound && c.Inferred:
	case c.Account == AccountNotFound && r.repo.NotFoundAt.IsZero():
		r.repo.NotFoundAt = steady
	case c.Account == AccountNotFound:
		purge = purge || steady.Sub(r.repo.NotFoundAt) >= notFoundTwice
	default:
		r.repo.NotFoundAt = time.Time{}
	}
	r.repo.Account = c.Account
	if !purge {
		return nil
	}
	return r.purge(a)
}

// readAt notes the host at which the repo was read, so that a denial of the host finds
// what came from there. Nothing is kept of a repo without a number. What was assumed of
// another host cannot be looked up any more: it is not known from here on.
func (r *repoRow) readAt(host string) {
	if r.rid == 0 || host == "" || host == r.repo.Host {
		return
	}
	r.repo.Host = host
	for c, h := range r.repo.Collections {
		if h.Exact == ExactAssumed {
			h.Exact = ExactUnknown
			r.repo.Collections[c] = h
		}
	}
}
