package repo

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/network/outcome"
	"appview/internal/record"
)

const (
	// maxCommit is far more than any commit takes.
	maxCommit = 16 << 10
	// maxRevAhead is how far a revision may lie in the future: clocks differ, and
	// a day is more than they do by accident.
	maxRevAhead = 24 * time.Hour
)

// Account is whose repo a CAR must be.
type Account struct {
	DID syntax.DID
	Key atcrypto.PublicKey // signs the commits
	Now time.Time          // by which a revision may lie in the future
}

// commit verifies the commit of an account, and gives the CID of its tree and its revision.
func (c *CAR) commit(a Account) (root []byte, rev syntax.TID, err error) {
	f, found, err := c.find(c.root)
	switch {
	case err != nil:
		return nil, "", err
	case !found:
		return nil, "", outcome.Bad(outcome.ReasonIncomplete, "the commit is missing")
	case f.size > maxCommit:
		return nil, "", outcome.Bad(outcome.ReasonBadAnswer, "a commit of more than %d bytes", maxCommit)
	}
	data, err := c.read(f, make([]byte, c.bufferSize(f)))
	if err != nil {
		return nil, "", err
	}
	commit, err := decodeCommit(data)
	if err == nil {
		err = checkUnambiguous(c.root, data)
	}
	switch {
	case err != nil:
		return nil, "", outcome.Bad(outcome.ReasonBadAnswer, "commit: %w", err)
	case commit.DID != a.DID.String():
		return nil, "", outcome.Bad(outcome.ReasonBadAnswer, "the repo is that of %.100q", commit.DID)
	case commit.Version != repo.ATPROTO_REPO_VERSION:
		return nil, "", outcome.Bad(outcome.ReasonBadAnswer, "repo of version %d", commit.Version)
	}
	if err := verifySignature(commit, a.Key); err != nil {
		return nil, "", outcome.Bad(outcome.ReasonBadSignature, "commit %s: %w", outcome.OneLine(commit.Rev), err)
	}
	rev, err = ParseRev(commit.Rev, a.Now)
	return commit.Data.Bytes(), rev, err
}

// ParseRev checks a revision: one that is no TID orders nothing, and one from the
// future would freeze the repo until then.
func ParseRev(s string, now time.Time) (syntax.TID, error) {
	rev, err := syntax.ParseTID(s)
	if err != nil {
		return "", outcome.Bad(outcome.ReasonBadRev, "%w", err)
	}
	if at := rev.Time(); at.After(now.Add(maxRevAhead)) {
		return "", outcome.Bad(outcome.ReasonBadRev, "%s is in the future: %s", rev, at.UTC().Format(time.RFC3339))
	}
	return rev, nil
}

// decodeCommit decodes with a library, and lets no panic of it out: what it is
// given comes from a host.
func decodeCommit(data []byte) (commit *repo.Commit, err error) {
	defer recoverInto(&err)
	in := bytes.NewReader(data)
	commit = new(repo.Commit)
	if err := commit.UnmarshalCBOR(in); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, errors.New("something after the end")
	}
	return commit, nil
}

// checkUnambiguous refuses a block with a key twice in a map, of which readers take the one
// or the other.
func checkUnambiguous(name digest, block []byte) error {
	id, err := cid.Cast(append([]byte(linkPrefix), name[:]...))
	if err == nil {
		_, err = record.FromCBOR(block, id)
	}
	return err
}

func verifySignature(commit *repo.Commit, key atcrypto.PublicKey) (err error) {
	defer recoverInto(&err)
	return commit.VerifySignature(key)
}

func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("reading it panicked: %v", p)
	}
}
