package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store/kv"
)

// LastRev is the rev as of which an administrator deletes, as it reads in a row.
var LastRev = syntax.NewTIDFromInteger(lastRev.Integer())

// Deletion is a deletion that is kept.
type Deletion struct {
	Seq  uint64
	At   time.Time
	Rev  syntax.TID
	DID  syntax.DID
	RKey syntax.RecordKey
}

// Deletions are the deletions that are kept of a collection, in their order.
func (s *Store) Deletions(ctx context.Context, collection syntax.NSID) (list []Deletion, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(collection))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, row []byte) error {
			n, rkey, ok := splitRecordKey(row[deletionHead:])
			if !ok {
				return fmt.Errorf("deletion %x: %w", k, errRow)
			}
			repo, err := repos.get(repos.bucket(tx), ridKey(n))
			list = append(list, Deletion{
				Seq: binary.BigEndian.Uint64(k), At: time.Unix(int64(binary.BigEndian.Uint64(row)), 0).UTC(),
				Rev: syntax.NewTIDFromInteger(binary.BigEndian.Uint64(row[8:])), DID: repo.DID, RKey: rkey,
			})
			return err
		})
	})
	return list, err
}

// Numbered are the repos that have a number, in the order of these.
func (s *Store) Numbered(ctx context.Context) (dids []syntax.DID, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return repos.bucket(tx).ForEach(func(k, row []byte) error {
			repo, err := repos.decode(k, row)
			dids = append(dids, repo.DID)
			return err
		})
	})
	return dids, err
}

// Indexed is the last change that the key index of a collection contains.
func (s *Store) Indexed(ctx context.Context, collection syntax.NSID) (at uint64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		at, err = watermark(tx, []byte(collection))
		return err
	})
	return at, err
}

// Formats is how many formats of the file there are.
func Formats() int { return len(migrations()) }

// MigrateTo does what Open does to an older file, as far as the format given: the
// process ends there.
func MigrateTo(path string, format int) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	from, v := uint64(0), 0
	err = db.View(func(tx *bbolt.Tx) error { from, err = metaOf(tx, "schema"); return err })
	for v = int(from); err == nil && v < format; v++ {
		migrate := migrations()[v]
		for again := true; again && err == nil; {
			err = db.Update(func(tx *bbolt.Tx) error {
				err := migrate(&kv.Tx{Tx: tx})
				if again = errors.Is(err, kv.ErrAgain); again {
					return nil
				}
				return errors.Join(err, asFormat(tx, v+1))
			})
		}
	}
	return errors.Join(err, db.Close())
}

// AsFormat has a file say that it is of a format.
func AsFormat(path string, format int) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error { return asFormat(tx, format) })
	return errors.Join(err, db.Close())
}

func asFormat(tx *bbolt.Tx, format int) error {
	return (&kv.Tx{Tx: tx}).PutMeta("schema", uint64(format))
}

// Unseal makes a file what the program of the format before has left: only records are
// sealed. It returns how many other rows were.
func Unseal(path string) (rows int, err error) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return 0, err
	}
	unseal := func(b *bbolt.Bucket) error {
		found := map[string][]byte{}
		if err := b.ForEach(func(k, row []byte) error {
			if row, ok := unsealed(k, row); ok {
				row = bytes.Clone(row)
				if row[0]&kv.SealedRow == kv.SealedRow { // of a table
					row[0] &^= kv.SealedRow
				}
				found[string(k)] = row
			}
			return nil
		}); err != nil {
			return err
		}
		rows += len(found)
		for k, row := range found {
			if err := b.Put([]byte(k), row); err != nil {
				return err
			}
		}
		return nil
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{
			repos.name, counts.name, jobs.name, "keys", collections.name, purges.name, denials.name, distrusted.name,
			"audit", freshness.name, totals.name, pauses.name, replies.name, "meta", keyIndexAtBucket,
		} {
			if err := unseal(tx.Bucket([]byte(name))); err != nil {
				return err
			}
		}
		work := tx.Bucket([]byte(workBucket))
		if err := work.ForEachBucket(func(seq []byte) error {
			w := work.Bucket(seq)
			return errors.Join(unseal(w.Bucket([]byte(cursorBucket))), unseal(w.Bucket([]byte(workReposBucket))),
				unseal(w.Bucket([]byte(owedBucket))), unseal(w.Bucket([]byte(hostsBucket))))
		}); err != nil {
			return err
		}
		return asFormat(tx, 6)
	})
	return rows, errors.Join(err, db.Close())
}

// StatusMoves is every way that a status may change.
func StatusMoves() map[api.Status][]api.Status { return statusMoves }

// Unsize makes a file what a program has left that knows no sizes of accounts.
func Unsize(path string) error {
	return edit(path, func(tx *bbolt.Tx) error {
		b := repos.bucket(tx)
		rows := map[string]Repo{}
		err := b.ForEach(func(k, row []byte) error {
			repo, err := repos.decode(k, row)
			repo.Bytes = 0
			rows[string(k)] = repo
			return err
		})
		for k, repo := range rows {
			err = errors.Join(err, repos.put(b, []byte(k), repo))
		}
		return errors.Join(err, asFormat(tx, 8))
	})
}

// SizeSome sizes the repos below a number, as a migration that is cut off.
func SizeSome(path string, below uint64) error {
	return edit(path, func(tx *bbolt.Tx) error {
		sizes, err := sizesOf(tx, 0, below)
		return errors.Join(err, putSizes(tx, 0, below, sizes))
	})
}

func edit(path string, do func(*bbolt.Tx) error) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(db.Update(do), db.Close())
}

// BucketBytes is what the pages of a bucket hold.
type BucketBytes struct {
	Rows, Elements, Empty, Branch int64 // Rows: bytes of keys and values
}

// Layout is what the pages of one collection's buckets hold, and how long the file is as
// far as anything was written to it.
func (s *Store) Layout(ctx context.Context, c syntax.NSID) (buckets map[string]BucketBytes, written int64, err error) {
	buckets = map[string]BucketBytes{}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		for _, name := range []string{recordsBucket, logBucket, keyIndexBucket} {
			b := tx.Bucket([]byte(name)).Bucket([]byte(c))
			if b == nil {
				continue
			}
			st, page := b.Stats(), int64(tx.DB().Info().PageSize)
			elements := leafElement * int64(st.KeyN+st.LeafPageN) // a page's header is as long
			buckets[name] = BucketBytes{
				Rows: int64(st.LeafInuse) - elements, Elements: elements,
				Empty: int64(st.LeafPageN+st.LeafOverflowN)*page - int64(st.LeafInuse), Branch: int64(st.BranchPageN) * page,
			}
		}
		written = tx.Size()
		return nil
	})
	return buckets, written, err
}

// Replies are the Idempotency-Keys of the replies that are kept, by owner, in their order.
func (s *Store) Replies(ctx context.Context) (of map[uuid.UUID][]string, err error) {
	of = map[uuid.UUID][]string{}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return replies.bucket(tx).ForEach(func(k, _ []byte) error {
			owner, key, err := splitReplyKey(k)
			of[owner] = append(of[owner], key)
			return err
		})
	})
	return of, err
}

// FillReplies puts n replies there, one an age older than the one before it, and their
// Idempotency-Keys are their numbers.
func (s *Store) FillReplies(ctx context.Context, owner uuid.UUID, n int, age time.Duration) error {
	return s.do(ctx, "fill replies", func(g *group) error {
		for i := range n {
			row := replyRow{Reply: Reply{Status: 201}, Request: make([]byte, sha256.Size), KeptFrom: g.steady.Add(-time.Duration(i) * age)}
			if err := replies.put(replies.bucket(g.tx), replyKey(owner, fmt.Sprint(i)), row); err != nil {
				return err
			}
		}
		return nil
	})
}

// MaxReplies is how many replies are kept.
const MaxReplies = keepRepliesNo
