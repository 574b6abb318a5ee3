package index

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/record"
	"appview/store/kv"
)

// checker checks what is in the rows.
type checker struct {
	*kv.Checker

	tx    *kv.Tx
	repos map[rid]Repo
	held  map[syntax.NSID]map[rid]int64 // records found
	sizes map[rid]int64                 // bytes found
	dead  map[syntax.NSID]map[rid]int64 // tombstones found
}

func (c *checker) found(format string, args ...any) { c.Found(format, args...) }

// check checks all rows.
func check(ctx context.Context, with *kv.Checker) error {
	c := &checker{Checker: with, tx: with.Tx, repos: map[rid]Repo{}, held: map[syntax.NSID]map[rid]int64{}, sizes: map[rid]int64{}, dead: map[syntax.NSID]map[rid]int64{}}
	for _, part := range []func(context.Context) error{
		c.owners, c.records, c.logs, c.deletions, c.tombstones, c.keyIndex, c.counts, c.accountSizes,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	kv.CheckTable(with, denials)
	kv.CheckTable(with, purges)
	return nil
}

// owners checks repos against dids.
func (c *checker) owners(ctx context.Context) error {
	next, err := c.tx.Meta(metaNextRID)
	if err != nil {
		return err
	}
	dids := c.tx.Bucket([]byte(didsBucket))
	n := 0
	err = repos.Bucket(c.tx).ForEach(func(k, row []byte) error {
		if len(k) != ridLen {
			c.found("repos: key %x", k)
			return nil
		}
		repo, err := repos.Decode(k, row)
		if err != nil {
			c.found("repo %x: %w", k, err)
			return nil
		}
		id := rid(binary.BigEndian.Uint32(k))
		if uint64(id) >= next {
			c.found("repo %d is above the next number, %d", id, next)
		}
		if !bytes.Equal(dids.Get([]byte(repo.DID)), k) {
			c.found("repo %d is %s, but dids does not say so", id, repo.DID)
		}
		c.repos[id] = repo
		n++
		return ctx.Err()
	})
	if got := dids.Stats().KeyN; got != n {
		c.found("dids has %d rows, repos %d", got, n)
	}
	return err
}

func (c *checker) records(ctx context.Context) error {
	next, err := c.tx.Meta(metaNextSeq)
	if err != nil {
		return err
	}
	for _, name := range collectionNames(c.tx) {
		collection := syntax.NSID(name)
		held := map[rid]int64{}
		c.held[collection] = held
		log := c.tx.Bucket([]byte(logBucket)).Bucket([]byte(name))
		if log == nil {
			c.found("collection %s has no log", name)
			continue
		}
		err := recordsOf(c.tx, collection).ForEach(func(k, v []byte) error {
			id, rkey, ok := splitRecordKey(k)
			row, err := parseRecordRow(k, v)
			switch {
			case !ok:
				c.found("%s: record key %x", name, k)
				return nil
			case err != nil:
				c.found("%s/%d/%s: %w", name, id, rkey, err)
				return nil
			}
			held[id]++
			c.sizes[id] += recordBytes(len(k), len(v))
			if _, ok := c.repos[id]; !ok {
				c.found("%s/%d/%s: no such repo", name, id, rkey)
			}
			if row.seq() >= next {
				c.found("%s/%d/%s: seq %d is above the next, %d", name, id, rkey, row.seq(), next)
			}
			if !bytes.Equal(log.Get(kv.NumberKey(row.seq())), k) {
				c.found("%s/%d/%s: its log entry %d is not its own", name, id, rkey, row.seq())
			}
			c.body(name, id, rkey, row)
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// body recomputes the CID of a verified record.
func (c *checker) body(collection string, id rid, rkey syntax.RecordKey, row recordRow) {
	claimed, err := cid.Cast(row.cid())
	if err != nil {
		c.found("%s/%d/%s: cid: %w", collection, id, rkey, err)
		return
	}
	if !row.verified() {
		return
	}
	switch body, err := record.FromCBOR(row.data(), claimed); {
	case err != nil:
		c.found("%s/%d/%s: %w", collection, id, rkey, err)
	case !body.Verified:
		c.found("%s/%d/%s: marked as verified, which its cid %s does not allow", collection, id, rkey, claimed)
	case row.plain() && !body.Plain:
		c.found("%s/%d/%s: marked as plain, but a text in it has to be escaped", collection, id, rkey)
	}
}

// logs checks that every log entry stands for a record; with one entry found for
// each record, that makes them equal.
func (c *checker) logs(ctx context.Context) error {
	for _, name := range collectionNames(c.tx) {
		records, entries := recordsOf(c.tx, syntax.NSID(name)), 0
		log := c.tx.Bucket([]byte(logBucket)).Bucket([]byte(name))
		if log == nil {
			continue // found already
		}
		err := log.ForEach(func(k, key []byte) error {
			entries++
			row, err := parseRecordRow(key, records.Get(key))
			if err != nil || row.seq() != binary.BigEndian.Uint64(k) {
				c.found("log %s/%x: no record has this seq", name, k)
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		var total int64
		for _, n := range c.held[syntax.NSID(name)] {
			total += n
		}
		if int64(entries) != total {
			c.found("log %s has %d entries for %d records", name, entries, total)
		}
	}
	return nil
}

// counts checks the repos' own counts and the served ones.
func (c *checker) counts(context.Context) error {
	served := map[syntax.NSID]Count{}
	for id, repo := range c.repos {
		for collection, h := range repo.Collections {
			if got := c.held[collection][id]; got != h.Count {
				c.found("repo %s counts %d records of %s, it has %d", repo.DID, h.Count, collection, got)
			}
			if got := c.dead[collection][id]; got != h.Tombstones {
				c.found("repo %s counts %d tombstones in %s, it has %d", repo.DID, h.Tombstones, collection, got)
			}
			if repo.Active() && h.Count > 0 {
				n := served[collection]
				n.Records += h.Count
				n.Repos++
				served[collection] = n
			}
		}
	}
	for collection, held := range c.held {
		for id, n := range held {
			if _, ok := c.repos[id].Collections[collection]; !ok {
				c.found("repo %d has %d records of %s that it does not count", id, n, collection)
			}
		}
	}
	err := counts.Bucket(c.tx).ForEach(func(k, row []byte) error {
		n, err := counts.Decode(k, row)
		if err != nil {
			c.found("counts %s: %w", k, err)
			return nil
		}
		if want := served[syntax.NSID(k)]; n != want {
			c.found("counts %s: %+v, found %+v", k, n, want)
		}
		delete(served, syntax.NSID(k))
		return nil
	})
	for collection, n := range served {
		c.found("counts has no %s, found %+v", collection, n)
	}
	return err
}
