package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// Repo is a repo of which the index has held a record.
type Repo struct {
	DID         syntax.DID           `json:"did"`
	Host        string               `json:"host,omitempty"`        // its PDS when it was last read
	Account     string               `json:"account"`               // AccountActive, or why it is not served
	NotFoundAt  time.Time            `json:"not_found_at,omitzero"` // by the store's own clock
	Floor       syntax.TID           `json:"floor,omitzero"`        // the highest rev at which any collection was read completely
	Collections map[syntax.NSID]Held `json:"collections"`

	// Bytes is how much the account takes of the file: its records, their log entries and
	// entries of the key index, the notes of its deletions, and the names of its collections.
	Bytes int64 `json:"bytes,omitempty"`
}

// Held is what the index holds of a repo in one collection.
type Held struct {
	Floor      syntax.TID `json:"floor,omitzero"` // rev of the last complete read
	Count      int64      `json:"count"`
	Exact      Exactness  `json:"exact,omitzero"`
	Tombstones int64      `json:"tombstones,omitempty"` // of records that are not held
}

// Exactness is what is known of whether the index holds just what a repo held at one
// moment of its last complete read, which is not before Floor: just what it holds as long
// as Floor is its rev. Stored: never renumber.
type Exactness uint8

// What may be known of what the index holds.
const (
	ExactUnknown Exactness = iota // nothing: not all was seen at one rev, or it was changed since
	ExactProved                   // it is that
	ExactAssumed                  // it is that if a short page of the host where it was read was the end of the listing
)

// Active reports whether the repo's records are served.
func (r Repo) Active() bool { return r.Account == AccountActive }

// Count is the number of records that are served of a collection, and of the
// repos that have them.
type Count struct {
	Records int64 `json:"records"`
	Repos   int64 `json:"repos"`
}

var (
	repos  = kv.Table[Repo]{Name: "repos", Version: 1, Fill: kv.FillAppend}
	counts = kv.Table[Count]{Name: "counts", Version: 1, Fill: kv.FillSpread}
)

// ridOf is the number of a repo, if it has one. Nothing proves it but the row that it
// leads to: see repoAt and accountOf.
func ridOf(tx *kv.Tx, did syntax.DID) (rid, bool, error) {
	row := tx.Bucket([]byte(didsBucket)).Get([]byte(did))
	switch {
	case row == nil:
		return 0, false, nil
	case len(row) != ridLen:
		return 0, false, fmt.Errorf("%w: rid of %s has %d bytes", kv.ErrRow, did, len(row))
	}
	return rid(binary.BigEndian.Uint32(row)), true, nil
}

// repoAt is the row of the repo whose number is n by what dids says, which it proves.
func repoAt(tx *kv.Tx, n rid, did syntax.DID) (Repo, error) {
	repo, err := repos.Get(repos.Bucket(tx), ridKey(n))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return Repo{}, fmt.Errorf("%w: %s has the number %d, and no row", kv.ErrRow, did, n)
	case err != nil:
		return Repo{}, fmt.Errorf("%s: %w", did, err)
	case repo.DID != did:
		return Repo{}, fmt.Errorf("%w: %s has the number %d, which is that of %s", kv.ErrRow, did, n, repo.DID)
	}
	return repo, nil
}

// Repo returns what is known of a repo, or kv.ErrNotFound when the index never held
// a record of it.
func (x *Index) Repo(ctx context.Context, did syntax.DID) (Repo, error) {
	return kv.Read(ctx, x.db, func(tx *kv.Tx) (Repo, error) { return repoOf(tx, did) })
}

func repoOf(tx *kv.Tx, did syntax.DID) (Repo, error) {
	n, ok, err := ridOf(tx, did)
	if err != nil {
		return Repo{}, err
	}
	if !ok {
		return Repo{}, fmt.Errorf("repo %s: %w", did, kv.ErrNotFound)
	}
	return repoAt(tx, n, did)
}

// repoRow is a repo that a change works on. Its number is given when its first
// record is put, so that numbers follow the order of commits.
type repoRow struct {
	g      *group
	rid    rid // 0 while it has none
	repo   Repo
	before Repo // as stored: maps not shared with repo

	removals int // records deleted in this change
}

func (g *group) repo(did syntax.DID) (*repoRow, error) {
	n, ok, err := ridOf(g.tx, did)
	if err != nil {
		return nil, err
	}
	r := &repoRow{g: g, rid: n, repo: Repo{DID: did, Account: AccountActive, Collections: map[syntax.NSID]Held{}}}
	if !ok {
		return r, nil
	}
	if r.repo, err = repoAt(g.tx, n, did); err != nil {
		return nil, err
	}
	if r.repo.Collections == nil {
		r.repo.Collections = map[syntax.NSID]Held{}
	}
	r.before = r.repo
	r.before.Collections = maps.Clone(r.repo.Collections)
	return r, nil
}

// number gives the repo its rid if it has none yet.
func (r *repoRow) number() error {
	if r.rid != 0 {
		return nil
	}
	if r.g.nextRID > maxRID {
		return fmt.Errorf("number %s: all %d repo numbers are used", r.repo.DID, uint64(maxRID))
	}
	r.rid = rid(r.g.nextRID)
	r.g.nextRID++
	dids := r.g.tx.Bucket([]byte(didsBucket))
	dids.FillPercent = kv.FillSpread
	return dids.Put([]byte(r.repo.DID), ridKey(r.rid))
}

const maxRID = 1<<32 - 1

// save writes the row if it changed, and brings the counts of served records in
// line with it. A repo without a number has nothing to remember.
func (r *repoRow) save() error {
	if r.rid == 0 || r.repo.equal(r.before) {
		return nil
	}
	for c := range r.before.Collections {
		if err := r.g.count(c, r.before.served(c), r.repo.served(c)); err != nil {
			return err
		}
	}
	for c := range r.repo.Collections {
		if _, had := r.before.Collections[c]; !had {
			if err := r.g.count(c, 0, r.repo.served(c)); err != nil {
				return err
			}
		}
	}
	return repos.Put(repos.Bucket(r.g.tx), ridKey(r.rid), r.repo)
}

func (r Repo) equal(o Repo) bool {
	if r.Host != o.Host || r.Bytes != o.Bytes || r.Floor != o.Floor || r.Account != o.Account || !r.NotFoundAt.Equal(o.NotFoundAt) || len(r.Collections) != len(o.Collections) {
		return false
	}
	for c, h := range r.Collections {
		if oh, ok := o.Collections[c]; !ok || oh != h {
			return false
		}
	}
	return true
}

// served is the number of the repo's records in c that count and are shown.
func (r Repo) served(c syntax.NSID) int64 {
	if !r.Active() {
		return 0
	}
	return r.Collections[c].Count
}

// count changes a collection's counts by what one repo brings or takes.
func (g *group) count(c syntax.NSID, before, after int64) error {
	if before == after {
		return nil
	}
	n := g.counts[c]
	if n == nil {
		stored, err := counts.Get(counts.Bucket(g.tx), []byte(c))
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		n = &stored
		g.counts[c] = n
	}
	n.Records += after - before
	switch {
	case before == 0:
		n.Repos++
	case after == 0:
		n.Repos--
	}
	return nil
}
