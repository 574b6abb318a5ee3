package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"appview/internal/api"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/kv"
)

// LastRev is the rev as of which an administrator deletes, as it reads in a row.
var LastRev = syntax.NewTIDFromInteger(index.LastRev.Integer())

// repos are the rows of repos, by their numbers.
var repos = kv.Table[index.Repo]{Name: "repos", Version: 1, Fill: kv.FillAppend}

// Deletion is a deletion that is kept.
type Deletion struct {
	Seq  uint64
	At   time.Time
	Rev  syntax.TID
	DID  syntax.DID
	RKey syntax.RecordKey
}

// Deletions are the deletions that are kept of a collection, in their order.
func (s *Store) Deletions(ctx context.Context, collection syntax.NSID) ([]Deletion, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (list []Deletion, err error) {
		b := tx.Bucket([]byte("deletions")).Bucket([]byte(collection))
		if b == nil {
			return nil, nil
		}
		err = b.ForEach(func(k, row []byte) error {
			const head, number = 16, 4
			repo, err := repos.Get(repos.Bucket(tx), row[head:head+number])
			list = append(list, Deletion{
				Seq: binary.BigEndian.Uint64(k), At: time.Unix(int64(binary.BigEndian.Uint64(row)), 0).UTC(),
				Rev: syntax.NewTIDFromInteger(binary.BigEndian.Uint64(row[8:])), DID: repo.DID, RKey: syntax.RecordKey(row[head+number:]),
			})
			return err
		})
		return list, err
	})
}

// Numbered are the repos that have a number, in the order of these.
func (s *Store) Numbered(ctx context.Context) ([]syntax.DID, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (dids []syntax.DID, err error) {
		err = repos.Bucket(tx).ForEach(func(k, row []byte) error {
			repo, err := repos.Decode(k, row)
			dids = append(dids, repo.DID)
			return err
		})
		return dids, err
	})
}

// Indexed is the last change that the key index of a collection contains.
func (s *Store) Indexed(ctx context.Context, collection syntax.NSID) (uint64, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (uint64, error) {
		row := tx.Bucket([]byte("rkeys_at")).Get([]byte(collection))
		if row == nil {
			return 0, nil
		}
		at, ok := kv.NumberOf([]byte(collection), row)
		if !ok {
			return 0, kv.ErrRow
		}
		return at, nil
	})
}

// Formats is how many formats of the file there are.
func Formats() int { return version }

// MigrateTo does what Open does to an older file, as far as the format given: the
// process ends there.
func MigrateTo(path string, format int) error {
	return edit(path, func(db *bbolt.DB) error {
		var from uint64
		err := db.View(func(tx *bbolt.Tx) (err error) {
			from, err = (&kv.Tx{Tx: tx}).Meta("schema")
			return err
		})
		migrations := schema(index.New(0)).Migrations
		for v := int(from); err == nil && v < format; v++ {
			for again := true; again && err == nil; {
				err = db.Update(func(tx *bbolt.Tx) error {
					err := migrations[v](&kv.Tx{Tx: tx})
					if again = errors.Is(err, kv.ErrAgain); again {
						return nil
					}
					return errors.Join(err, asFormat(tx, v+1))
				})
			}
		}
		return err
	})
}

// AsFormat has a file say that it is of a format.
func AsFormat(path string, format int) error {
	return edit(path, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error { return asFormat(tx, format) })
	})
}

func asFormat(tx *bbolt.Tx, format int) error {
	return (&kv.Tx{Tx: tx}).PutMeta("schema", uint64(format))
}

// Unseal makes a file what the program of the format before has left: only records are
// sealed. It returns how many other rows were.
func Unseal(path string) (rows int, err error) {
	unseal := func(b *bbolt.Bucket) error {
		found := map[string][]byte{}
		if err := b.ForEach(func(k, row []byte) error {
			if row, ok := kv.Unseal(k, row); ok {
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
	err = edit(path, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{
				"repos", "counts", "jobs", "keys", "collections", "purges", "denylist", "distrusted",
				"audit", "freshness", "totals", "pauses", "replies", "meta", "rkeys_at",
			} {
				if err := unseal(tx.Bucket([]byte(name))); err != nil {
					return err
				}
			}
			work := tx.Bucket([]byte("work"))
			if err := work.ForEachBucket(func(seq []byte) error {
				w := work.Bucket(seq)
				return errors.Join(unseal(w.Bucket([]byte("cursor"))), unseal(w.Bucket([]byte("repos"))),
					unseal(w.Bucket([]byte("owed"))), unseal(w.Bucket([]byte("hosts"))))
			}); err != nil {
				return err
			}
			return asFormat(tx, 6)
		})
	})
	return rows, err
}

// Unsize makes a file what a program has left that knows no sizes of accounts, and a later
// one that was cut off when it had sized the repos below a number.
func Unsize(path string, from uint64) error {
	return edit(path, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b := repos.Bucket(&kv.Tx{Tx: tx})
			rows := map[string]index.Repo{}
			err := b.ForEach(func(k, row []byte) error {
				repo, err := repos.Decode(k, row)
				if uint64(binary.BigEndian.Uint32(k)) >= from {
					repo.Bytes = 0
				}
				rows[string(k)] = repo
				return err
			})
			for k, repo := range rows {
				err = errors.Join(err, repos.Put(b, []byte(k), repo))
			}
			return errors.Join(err, asFormat(tx, 8))
		})
	})
}

func edit(path string, do func(*bbolt.DB) error) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}

// BucketBytes is what the pages of a bucket hold.
type BucketBytes struct {
	Rows, Elements, Empty, Branch int64 // Rows: bytes of keys and values
}

// Layout is what the pages of one collection's buckets hold, and how long the file is as
// far as anything was written to it.
func (s *Store) Layout(ctx context.Context, c syntax.NSID) (buckets map[string]BucketBytes, written int64, err error) {
	buckets = map[string]BucketBytes{}
	err = s.db.View(ctx, func(tx *kv.Tx) error {
		for _, name := range []string{"records", "log", "rkeys"} {
			b := tx.Bucket([]byte(name)).Bucket([]byte(c))
			if b == nil {
				continue
			}
			const element = 16 // and as long is a page's header
			st, page := b.Stats(), int64(tx.DB().Info().PageSize)
			elements := element * int64(st.KeyN+st.LeafPageN)
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

// reply is as much of a kept reply as tests make of one.
type reply struct {
	Status   int       `json:"status"`
	Body     string    `json:"body"`
	Request  []byte    `json:"request"`
	KeptFrom time.Time `json:"kept_from"`
}

var replies = kv.Table[reply]{Name: "replies", Version: 1, Fill: kv.FillSpread}

// Replies are the Idempotency-Keys of the replies that are kept, by owner, in their order.
func (s *Store) Replies(ctx context.Context) (map[uuid.UUID][]string, error) {
	return kv.Read(ctx, s.db, func(tx *kv.Tx) (map[uuid.UUID][]string, error) {
		of := map[uuid.UUID][]string{}
		return of, replies.Bucket(tx).ForEach(func(k, _ []byte) error {
			owner := uuid.UUID(k[:len(uuid.Nil)])
			of[owner] = append(of[owner], string(k[len(owner):]))
			return nil
		})
	})
}

// FillReplies puts n replies there, one an age older than the one before it, and their
// Idempotency-Keys are their numbers.
func (s *Store) FillReplies(ctx context.Context, owner uuid.UUID, n int, age time.Duration) error {
	return s.db.Do(ctx, kv.Change{Op: "fill replies", Urgent: true, Apply: func(tx *kv.Tx) error {
		for i := range n {
			key := append(owner[:], strconv.Itoa(i)...)
			row := reply{Status: 201, Request: make([]byte, sha256.Size), KeptFrom: tx.Steady.Add(-time.Duration(i) * age)}
			if err := replies.Put(replies.Bucket(tx), key, row); err != nil {
				return err
			}
		}
		return nil
	}})
}

// MaxReplies is how many replies are kept.
const MaxReplies = jobs.MaxReplies

// StatusMoves is every way that a status may change.
func StatusMoves() map[api.Status][]api.Status { return jobs.StatusMoves() }
