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

// Buckets are those of this package at the top of the file.
func Buckets() []string { return []string{apiKeys.Name, events.Name} }

// Check checks that every key and every event can be read.
func Check(ctx context.Context, c *kv.Checker) error {
	kv.CheckTable(c, apiKeys)
	kv.CheckTable(c, events)
	return ctx.Err()
}

// do makes a change that a user waits for.
func (a *Admin) do(ctx context.Context, op string, apply func(*kv.Tx) error) error {
	return a.db.Do(ctx, kv.Change{Op: op, Urgent: true, Interactive: true, Apply: apply})
}
