package store

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"appview/record"
)

// What the public reads ask for is read in one transaction each: the account's
// status and the records that it decides about.

// Version names the state of the file. Any commit changes it: what was read
// between two calls that return the same is still so.
func (s *Store) Version(ctx context.Context) (version uint64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		version = uint64(tx.ID())
		return nil
	})
	return version, err
}

// ServedRecord returns a record and the status of its account, which is empty if
// the repo is not known. It is ErrNotFound if there is no such record. Of accounts
// that are not active no record is returned.
func (s *Store) ServedRecord(ctx context.Context, uri record.URI) (rec Record, account string, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		n, status, err := accountOf(tx, uri.DID)
		if account = status; err != nil || status != AccountActive {
			return err
		}
		var raw []byte
		if b := recordsOf(tx, uri.Collection); b != nil {
			raw = b.Get(recordKey(n, uri.RKey))
		}
		if raw == nil {
			return fmt.Errorf("record %s: %w", uri, ErrNotFound)
		}
		row, err := parseRecordRow(raw)
		if err != nil {
			return fmt.Errorf("record %s: %w", uri, err)
		}
		rec, err = row.record(uri.DID, uri.Collection, uri.RKey)
		return err
	})
	return rec, account, err
}

// ServedPage returns a page of one repo's records in a collection as RepoRecords
// does, and the status of its account, which is empty if the repo is not known. Of
// accounts that are not active no record is returned. The page ends early when the
// bodies have as many bytes as given; more says whether something follows.
func (s *Store) ServedPage(ctx context.Context, p RepoPage, maxBytes int) (list []Record, account string, more bool, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		n, status, err := accountOf(tx, p.DID)
		if account = status; err != nil || status != AccountActive {
			return err
		}
		b := recordsOf(tx, p.Collection)
		if b == nil {
			return nil
		}
		list = make([]Record, 0, p.Limit)
		prefix, c := ridKey(n), b.Cursor()
		k, v := seekPage(c, n, p)
		step := c.Prev
		if p.Ascending {
			step = c.Next
		}
		for size := 0; bytes.HasPrefix(k, prefix); k, v = step() {
			if len(list) == p.Limit || size >= maxBytes {
				more = true
				return nil
			}
			rec, err := recordAt(p.DID, p.Collection, k, v)
			if err != nil {
				return err
			}
			list, size = append(list, rec), size+len(rec.Body.Data)
		}
		return nil
	})
	return list, account, more, err
}

// seekPage puts the cursor on the first record of a page.
func seekPage(c *bbolt.Cursor, n rid, p RepoPage) (k, v []byte) {
	switch {
	case !p.Ascending && p.After == "":
		return seekBefore(c, ridKey(n+1))
	case !p.Ascending:
		return seekBefore(c, recordKey(n, p.After))
	}
	if k, v = c.Seek(recordKey(n, p.After)); p.After != "" && bytes.Equal(k, recordKey(n, p.After)) {
		return c.Next()
	}
	return k, v
}

// accountOf is a repo's number and the status of its account, empty if it is not
// known. A repo may hold many collections: only the start of its row is looked at.
func accountOf(tx *bbolt.Tx, did syntax.DID) (rid, string, error) {
	n, ok, err := ridOf(tx, did)
	if err != nil || !ok {
		return 0, "", err
	}
	if o, ok := quickOwner(repos.bucket(tx).Get(ridKey(n))); ok && o.active {
		return n, AccountActive, nil
	}
	repo, err := repos.get(repos.bucket(tx), ridKey(n))
	return n, repo.Account, err
}
