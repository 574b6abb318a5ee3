package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"appview/store/kv"
)

// How many replies are kept, and for how long.
const (
	keepReplies = 24 * time.Hour
	MaxReplies  = 10_000 // of all owners
)

// MaxIdempotencyKey is the length of the longest Idempotency-Key.
const MaxIdempotencyKey = 255

// ErrOtherRequest says that an Idempotency-Key was sent with another request before.
var ErrOtherRequest = errors.New("it was sent with another request before")

// Idempotency has a change that makes a job be made once, however often it is asked for:
// the reply is kept in the transaction that makes the job.
type Idempotency struct {
	Owner   uuid.UUID         // whoever asks. The same Key of another owner is another one
	Key     string            // the Idempotency-Key: 1 to MaxIdempotencyKey bytes
	Request [sha256.Size]byte // hash of all that is asked for

	// Reply is what to keep: the answer about a job that was made, or about the one that
	// is there, if any. It is called within the transaction, and must not wait for anything.
	Reply func(job *Job, made bool) (Reply, error)
}

// Reply is the answer to a request.
type Reply struct {
	Status   int    `json:"status"`             // of HTTP
	Location string `json:"location,omitempty"` // the path of a route
	Body     string `json:"body"`
}

// ReplyError is the answer to a change that was made before: what was replied then.
type ReplyError struct{ Reply Reply }

func (e *ReplyError) Error() string { return "made before, with the same Idempotency-Key" }

// idempotencyOf is the key under which a context holds an Idempotency.
type idempotencyOf struct{}

// WithIdempotency returns a context whose change is made once. It holds for CreateJob,
// RetryJob and AddCollection, which fail with a ReplyError when the change was made before,
// and with ErrOtherRequest when another one was.
func WithIdempotency(ctx context.Context, i Idempotency) context.Context {
	return context.WithValue(ctx, idempotencyOf{}, i)
}

// replyRow is a reply that is kept.
type replyRow struct {
	Reply

	Request  []byte    `json:"request"`   // hash of what was asked for
	KeptFrom time.Time `json:"kept_from"` // by the store's own clock
}

var replies = kv.Table[replyRow]{Name: "replies", Version: 1, Fill: kv.FillSpread}

// replied fails with a ReplyError if this was asked for before, unless that was too long
// ago, and with ErrOtherRequest if something else was.
func (i Idempotency) replied(tx *kv.Tx, steady time.Time) error {
	row, err := replies.Get(replies.Bucket(tx), replyKey(i.Owner, i.Key))
	switch {
	case errors.Is(err, kv.ErrNotFound), err == nil && row.old(steady):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(row.Request, i.Request[:]):
		return kv.Refuse(fmt.Errorf("the Idempotency-Key %q: %w", i.Key, ErrOtherRequest))
	}
	return kv.Refuse(&ReplyError{row.Reply})
}

func (r replyRow) old(steady time.Time) bool { return steady.Sub(r.KeptFrom) >= keepReplies }

// replied fails with a ReplyError if what ctx asks for was made before, and with
// ErrOtherRequest, as far as can be told without the writer: a full disk, or a job that is
// forgotten, does not keep the answer back.
func (f file) replied(ctx context.Context) error {
	i, is := ctx.Value(idempotencyOf{}).(Idempotency)
	if !is {
		return nil
	}
	return f.db.View(ctx, func(tx *kv.Tx) error {
		steady, err := tx.RunningClock()
		if err != nil {
			return err
		}
		return i.replied(tx, steady)
	})
}

// made is a job that was asked for, and whether anything was changed for it.
type made struct {
	job  *Job
	made bool
}

// makeOnce makes a change that makes a job, unless it was made before, and keeps the reply.
// do returns the job that the reply is about, and whether anything has changed.
func (f file) makeOnce(ctx context.Context, op string, do func(*group) (job *Job, made bool, err error)) (*Job, bool, error) {
	if err := f.replied(ctx); err != nil {
		return nil, false, err
	}
	m, err := write(ctx, f, interactive(op), func(g *group) (m made, err error) {
		i, is := ctx.Value(idempotencyOf{}).(Idempotency)
		if is {
			if err := i.replied(g.tx, g.tx.Steady); err != nil {
				return m, err
			}
		}
		if m.job, m.made, err = do(g); err != nil || !is {
			return m, err
		}
		return m, g.keepReply(i, m.job, m.made)
	})
	return m.job, m.made, err
}

func (g *group) keepReply(i Idempotency, job *Job, made bool) error {
	reply, err := i.Reply(job, made)
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	b := replies.Bucket(g.tx)
	if err := evictReplies(b); err != nil {
		return fmt.Errorf("evict replies: %w", err)
	}
	return replies.Put(b, replyKey(i.Owner, i.Key), replyRow{Reply: reply, Request: i.Request[:], KeptFrom: g.tx.Steady})
}

// evictReplies makes room for one more: a tenth of what the owner has that has most gives
// way, the oldest. So no owner pushes out what another needs.
func evictReplies(b *kv.Bucket) error {
	n, of := 0, map[uuid.UUID]int{}
	most := uuid.Nil
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		owner, err := replyOwner(k)
		if err != nil {
			return err
		}
		n++
		if of[owner]++; of[owner] > of[most] {
			most = owner
		}
	}
	if n < MaxReplies {
		return nil
	}
	type kept struct {
		key  []byte
		from time.Time
	}
	var list []kept
	for k, row := c.Seek(most[:]); bytes.HasPrefix(k, most[:]); k, row = c.Next() {
		r, err := replies.Decode(k, row)
		if err != nil {
			return fmt.Errorf("%x: %w", k, err)
		}
		list = append(list, kept{bytes.Clone(k), r.KeptFrom})
	}
	slices.SortStableFunc(list, func(a, b kept) int { return a.from.Compare(b.from) })
	for _, one := range list[:(len(list)+9)/10] {
		if err := b.Delete(one.key); err != nil {
			return err
		}
	}
	return nil
}

// pruneReplies deletes the replies that are too old.
func pruneReplies(tx *kv.Tx, left *int) error {
	b := replies.Bucket(tx)
	var old [][]byte
	c := b.Cursor()
	for k, row := c.First(); k != nil && len(old) < *left; k, row = c.Next() {
		r, err := replies.Decode(k, row)
		if err != nil {
			return fmt.Errorf("prune replies: %x: %w", k, err)
		}
		if r.old(tx.Steady) {
			old = append(old, bytes.Clone(k))
		}
	}
	*left -= len(old)
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return fmt.Errorf("prune replies: %w", err)
		}
	}
	return nil
}

// checkReplies checks that every reply can be read, is one, and stands under a key.
func checkReplies(ctx context.Context, c *kv.Checker) error {
	return replies.Bucket(c.Tx).ForEach(func(k, row []byte) error {
		if _, err := replyOwner(k); err != nil {
			c.Found("reply %x: %w", k, err)
		}
		switch r, err := replies.Decode(k, row); {
		case err != nil:
			c.Found("reply %x: %w", k, err)
		case r.Status/100 != 2 || len(r.Request) != sha256.Size || r.KeptFrom.IsZero():
			c.Found("reply %x: status %d, a hash of %d bytes, kept from %s", k, r.Status, len(r.Request), r.KeptFrom)
		}
		return ctx.Err()
	})
}
