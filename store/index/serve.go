package index

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/store/kv"
)

// What the public reads ask for is read in one transaction each: the account's
// status and the records that it decides about.

// ServedRecord returns a record and the status of its account, which is empty if
// the repo is not known. It is kv.ErrNotFound if there is no such record. Of accounts
// that are not active no record is returned.
func (x *Index) ServedRecord(ctx context.Context, uri record.URI) (rec Record, account string, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		n, status, err := accountOf(tx, uri.DID)
		if account = status; err != nil || status != AccountActive {
			return err
		}
		b := recordsOf(tx, uri.Collection)
		if b == nil {
			return fmt.Errorf("record %s: %w", uri, kv.ErrNotFound)
		}
		rec, err = recordOf(b, n, uri)
		return err
	})
	return rec, account, err
}

// ServedPage calls each for a page of one repo's records in a collection as
// RepoRecords does, and returns the status of its account, which is empty if the repo
// is not known. Of accounts that are not active there is no record. more says whether
// something follows.
func (x *Index) ServedPage(ctx context.Context, p RepoPage, each func(*Record) error) (account string, more bool, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		n, status, err := accountOf(tx, p.DID)
		if account = status; err != nil || status != AccountActive {
			return err
		}
		more, err = readPage(tx, n, p, each)
		return err
	})
	return account, more, err
}

// accountOf is a repo's number and the status of its account, empty if it is not
// known. A repo may hold many collections: only the start of its row is decoded.
func accountOf(tx *kv.Tx, did syntax.DID) (rid, string, error) {
	n, known, err := ridOf(tx, did)
	if err != nil || !known {
		return 0, "", err
	}
	key := ridKey(n)
	if o, ok := quickOwner(key, repos.Bucket(tx).Get(key)); ok && o.active && o.did == did {
		return n, AccountActive, nil
	}
	repo, err := repoAt(tx, n, did)
	return n, repo.Account, err
}
