package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// HeldRepos looks at so many repos from a number on, and returns those of which the index holds
// records of the targets; without targets: any records. next is the number to go on at, 0 at
// the end.
func HeldRepos(tx *kv.Tx, from uint32, looks int, targets []syntax.NSID) (dids []syntax.DID, next uint32, err error) {
	c := repos.Bucket(tx).Cursor()
	k, row := c.Seek(ridKey(rid(from)))
	for ; k != nil && looks > 0; k, row = c.Next() {
		repo, err := repos.Decode(k, row)
		if err != nil {
			return nil, 0, fmt.Errorf("repo %x: %w", k, err)
		}
		if repo.holds(targets) {
			dids = append(dids, repo.DID)
		}
		looks--
	}
	if k != nil {
		next = binary.BigEndian.Uint32(k)
	}
	return dids, next, nil
}

// CountOf is what is served of a collection.
func CountOf(tx *kv.Tx, c syntax.NSID) (Count, error) {
	n, err := counts.Get(counts.Bucket(tx), []byte(c))
	if errors.Is(err, kv.ErrNotFound) {
		err = nil
	}
	return n, err
}

// holds reports whether the index holds records of the repo in any of the targets.
func (r Repo) holds(targets []syntax.NSID) bool {
	if len(targets) == 0 {
		for _, h := range r.Collections {
			if h.Count > 0 {
				return true
			}
		}
		return false
	}
	for _, t := range targets {
		if r.Collections[t].Count > 0 {
			return true
		}
	}
	return false
}
