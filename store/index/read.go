package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/kv"
)

// RepoPage asks for records of one collection of one repo, in key order.
type RepoPage struct {
	DID        syntax.DID
	Collection syntax.NSID
	After      syntax.RecordKey // start behind this key, empty: at the beginning
	Ascending  bool             // oldest record keys first
	Limit      int
}

// ErrStop is what the callback of a read returns to end it behind the record that it
// was given. It is no failure, and the read does not return it.
var ErrStop = errors.New("the page is long enough")

// RepoRecords calls each for a page of one repo's records in a collection; more says
// whether something follows. It does not look at the account's status: see Repo.
//
// As in all reads of pages, a record's body is good until each returns, each may end
// the page early with ErrStop, and it must not take long: a transaction is held open
// meanwhile.
func (x *Index) RepoRecords(ctx context.Context, p RepoPage, each func(*Record) error) (more bool, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		repo, account, err := accountOf(tx, p.DID)
		if err != nil || account == "" {
			return err
		}
		more, err = readPage(tx, repo, p, each)
		return err
	})
	return more, err
}

// readPage calls each for a page of a repo's records. more reports whether something
// follows.
func readPage(tx *kv.Tx, repo rid, p RepoPage, each func(*Record) error) (more bool, err error) {
	b := recordsOf(tx, p.Collection)
	if b == nil {
		return false, nil
	}
	to, prefix, c := newPasser(each), ridKey(repo), b.Cursor()
	k, v := seekPage(c, repo, p)
	step := c.Prev
	if p.Ascending {
		step = c.Next
	}
	for ; bytes.HasPrefix(k, prefix); k, v = step() {
		if to.full(p.Limit) {
			return true, nil
		}
		if err := to.pass(p.DID, p.Collection, k, v); err != nil {
			return false, err
		}
	}
	return false, nil
}

// seekPage puts the cursor on the first record of a page.
func seekPage(c *kv.Cursor, n rid, p RepoPage) (k, v []byte) {
	switch {
	case !p.Ascending && p.After == "":
		return kv.SeekBefore(c, ridKey(n+1))
	case !p.Ascending:
		return kv.SeekBefore(c, recordKey(n, p.After))
	}
	if k, v = c.Seek(recordKey(n, p.After)); p.After != "" && bytes.Equal(k, recordKey(n, p.After)) {
		return c.Next()
	}
	return k, v
}

// newestScan bounds the log entries that one call of Newest looks at, so that a
// long row of inactive accounts cannot hold a read transaction open.
const newestScan = 10_000

// Newest calls each for records of a collection over all active repos, the latest
// indexed first, below the given place in the order of changes (0: from the
// top). next is where the following page starts, 0 at the end; a page may be
// short, or empty, without being the last.
func (x *Index) Newest(ctx context.Context, collection syntax.NSID, below uint64, limit int, each func(*Record) error) (next uint64, err error) {
	err = x.db.View(ctx, func(tx *kv.Tx) error {
		log, records := tx.Bucket([]byte(logBucket)).Bucket([]byte(collection)), recordsOf(tx, collection)
		if log == nil || records == nil {
			return nil
		}
		to := newPasser(each)
		owners, rows := newOwners(tx), neighbours{c: records.Cursor()}
		c := log.Cursor()
		k, key := c.Last()
		if below > 0 {
			k, key = kv.SeekBefore(c, kv.NumberKey(below))
		}
		for scanned := 0; k != nil; k, key = c.Prev() {
			if to.full(limit) || scanned == newestScan {
				next = binary.BigEndian.Uint64(k) + 1
				return nil
			}
			scanned++
			owner, err := owners.of(key)
			if err != nil {
				return err
			}
			if !owner.active {
				continue
			}
			if err := to.read(owner.did, collection, key, rows.get(key)); err != nil {
				return err
			}
			if seq := binary.BigEndian.Uint64(k); to.rec.Seq != seq {
				return fmt.Errorf("%w: %s is number %d in the order of changes, its row says %d", kv.ErrRow, to.rec.URI(), seq, to.rec.Seq)
			}
			if err := to.hand(); err != nil {
				return err
			}
		}
		return nil
	})
	return next, err
}

// neighbours gets rows of a bucket in an order in which the next one is often that
// before in the order of keys: records of a repo are logged in ascending order, and
// read from the latest. To step there costs far less than to search the tree.
type neighbours struct {
	c      *kv.Cursor
	placed bool
}

// get returns the row under key, nil if there is none.
func (n *neighbours) get(key []byte) []byte {
	if n.placed {
		if k, row := n.c.Prev(); bytes.Equal(k, key) {
			return row
		}
	}
	n.placed = true
	if k, row := n.c.Seek(key); bytes.Equal(k, key) {
		return row
	}
	return nil
}

// owner is what a read must know of a record's repo.
type owner struct {
	did    syntax.DID
	active bool
}

// owners looks up the repos of records, remembering the last ones.
type owners struct {
	repos *kv.Cursor
	seen  map[rid]owner
	rid   rid   // the last asked for, 0 at first
	last  owner // of it
}

// ownersKept bounds what owners remembers.
const ownersKept = 4096

func newOwners(tx *kv.Tx) *owners {
	return &owners{repos: repos.Bucket(tx).Cursor(), seen: map[rid]owner{}}
}

// of returns the repo of a record's key.
func (o *owners) of(key []byte) (owner, error) {
	if len(key) <= ridLen {
		return owner{}, fmt.Errorf("%w: record key %x", kv.ErrRow, key)
	}
	n := rid(binary.BigEndian.Uint32(key))
	if n == o.rid && n != 0 {
		return o.last, nil
	}
	r, ok := o.seen[n]
	if !ok {
		var err error
		if r, err = o.find(key); err != nil {
			return owner{}, err
		}
		if len(o.seen) == ownersKept {
			clear(o.seen)
		}
		o.seen[n] = r
	}
	o.rid, o.last = n, r
	return r, nil
}

// find reads the repo of a record's key.
func (o *owners) find(key []byte) (owner, error) {
	at, row := o.repos.Seek(key[:ridLen])
	if !bytes.Equal(at, key[:ridLen]) {
		return owner{}, fmt.Errorf("%w: record %x has no repo", kv.ErrRow, key)
	}
	r, ok := quickOwner(at, row)
	if !ok {
		repo, err := repos.Decode(at, row)
		if err != nil {
			return owner{}, fmt.Errorf("owner of record %x: %w", key, err)
		}
		r = owner{repo.DID, repo.Active()}
	}
	return r, nil
}

// What a row of an active repo looks like at its beginning: Repo's first members
// in their order.
const (
	rowDID     = `{"did":"`
	rowAccount = `,"account":"`
)

// quickOwner reads the beginning of a repo's row, and checks the seal of all of it: a
// repo may hold many collections, and the row of each record on a page is another
// repo's. It gives up on all that is not as it writes it itself: no quote stands in
// these strings.
func quickOwner(key, row []byte) (owner, bool) {
	body, err := repos.Body(key, row)
	if err != nil {
		return owner{}, false
	}
	rest, ok := bytes.CutPrefix(body, []byte(rowDID))
	did, rest, found := bytes.Cut(rest, []byte{'"'})
	_, rest, named := bytes.Cut(rest, []byte(rowAccount))
	status, _, ended := bytes.Cut(rest, []byte{'"'})
	if !ok || !found || !named || !ended || bytes.IndexByte(did, '\\') >= 0 {
		return owner{}, false
	}
	return owner{did: syntax.DID(did), active: string(status) == AccountActive}, true
}

// Filter chooses records. Empty members choose all.
type Filter struct {
	Collection syntax.NSID `json:"collection,omitzero"`
	DID        syntax.DID  `json:"did,omitzero"`
}

// String says in words what the filter chooses.
func (f Filter) String() string {
	switch {
	case f.Collection == "":
		return f.DID.String()
	case f.DID == "":
		return f.Collection.String()
	default:
		return f.Collection.String() + " of " + f.DID.String()
	}
}

// Export calls each for every record of active accounts that the filter chooses, by
// collection, repo and key, as they were at one moment: seq is the last change
// that they contain. It holds one read transaction open until it returns: the
// file cannot reuse pages meanwhile, so each must not take long. begin is called
// once, before the first record.
func (x *Index) Export(ctx context.Context, filter Filter, begin func(seq uint64) error, each func(*Record) error) error {
	begun, to := begin, newPasser(each)
	begin = func(seq uint64) error { defer kv.Rethrow(); return begun(seq) }
	return x.db.View(ctx, func(tx *kv.Tx) error {
		next, err := tx.Meta(metaNextSeq)
		if err != nil {
			return err
		}
		if err := begin(next - 1); err != nil {
			return err
		}
		var only rid
		if filter.DID != "" {
			n, account, err := accountOf(tx, filter.DID)
			if err != nil || account == "" {
				return err
			}
			only = n
		}
		names := []string{string(filter.Collection)}
		if filter.Collection == "" {
			names = collectionNames(tx)
		}
		for _, name := range names {
			if err := exportCollection(ctx, tx, syntax.NSID(name), only, to); err != nil {
				return err
			}
		}
		return nil
	})
}

func exportCollection(ctx context.Context, tx *kv.Tx, collection syntax.NSID, only rid, to *passer) error {
	b := recordsOf(tx, collection)
	if b == nil {
		return nil
	}
	owners, prefix := newOwners(tx), []byte(nil)
	if only != 0 {
		prefix = ridKey(only)
	}
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && k != nil && !to.enough; k, v = c.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		owner, err := owners.of(k)
		if err != nil {
			return err
		}
		if !owner.active {
			continue
		}
		if err := to.pass(owner.did, collection, k, v); err != nil {
			return err
		}
	}
	return nil
}

// collectionNames is every collection of which a record was ever stored.
func collectionNames(tx *kv.Tx) (names []string) {
	c := tx.Bucket([]byte(recordsBucket)).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		names = append(names, string(k))
	}
	return names
}

// RepoCollections returns the collections of which the index holds records of a
// repo, in order.
func (r Repo) RepoCollections() []syntax.NSID {
	var list []syntax.NSID
	for c, h := range r.Collections {
		if h.Count > 0 {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list
}
