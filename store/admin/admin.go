// Package admin keeps what concerns administrators: API keys, when each was used last,
// and the audit log. It is the lowest of the packages that know what rows mean, since
// an entry of the audit log is committed with what it is about.
package admin

import (
	"context"

	"appview/store/kv"
)

// Admin is what a file holds for administrators.
type Admin struct {
	db   *kv.DB
	uses uses
}

// New returns what an open file holds.
func New(db *kv.DB) *Admin { return &Admin{db: db} }

// Part is what this package brings to a file.
func Part() kv.Part {
	return kv.Part{
		Buckets: []string{apiKeys.Name, events.Name},
		Migrations: map[int]func(*kv.Tx) error{
			1: func(tx *kv.Tx) error { return kv.MakeBuckets(tx, apiKeys.Name) },
			3: addAudit,
		},
		Check: check,
		Prune: func(context.Context, *kv.DB) (func(*kv.Tx, *int) error, error) { return prune, nil },
	}
}

// check checks that every key and every event can be read.
func check(ctx context.Context, c *kv.Checker) error {
	kv.CheckTable(c, apiKeys)
	kv.CheckTable(c, events)
	return ctx.Err()
}

// do makes a change that a user waits for.
func (a *Admin) do(ctx context.Context, op string, apply func(*kv.Tx) error) error {
	return a.db.Do(ctx, kv.Change{Op: op, Urgent: true, Interactive: true, Apply: apply})
}
