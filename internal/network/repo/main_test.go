package repo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
)

// free charges nothing.
func free(int64) error { return nil }

// unbounded is as much memory as a test wants.
func unbounded() Memory {
	return Memory{Grow: free, Spill: func(_ int64, write func() error) error { return write() }}
}

// account is whose repos a maker makes.
func account(m *repotest.Maker) Account {
	return Account{DID: repotest.DID, Key: m.PublicKey(), Now: time.Now()}
}

// open reads a body as the repo of an account.
func open(ctx context.Context, body string, a Account) (*Repo, error) {
	c := NewCAR(nil)
	if err := c.Receive(strings.NewReader(body), unbounded()); err != nil {
		return nil, err
	}
	r, err := c.Open(ctx, a, free)
	if err != nil {
		c.Close()
	}
	return r, err
}

// wantOutcome wants a repo to be refused for a reason, or read if there is none, and closes it.
func wantOutcome(tb testing.TB, r *Repo, err error, want outcome.Reason) {
	tb.Helper()
	got := outcome.Reason("")
	if bad, ok := errors.AsType[*outcome.BadContent](err); ok {
		got = bad.Reason
	}
	if got != want || err != nil && got == "" {
		tb.Errorf("got %v, want %q", err, want)
	}
	if err == nil {
		r.Close()
	}
}
