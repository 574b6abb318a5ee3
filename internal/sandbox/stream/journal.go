package stream

import (
	"errors"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// item is what a source sends at once. It is never changed.
type item struct {
	seq        int64
	at         int64             // Unix microseconds at which the source witnessed it
	kind       sandbox.EventKind // empty: bytes without a meaning
	once       bool              // only for who is connected already; it has no seq of its own
	did        syntax.DID
	collection syntax.NSID
	rkey       syntax.RecordKey
	deletes    bool      // a record
	ends       bool      // an account
	wire       [2][]byte // what is sent, by shape
}

func (it item) size() int { return len(it.wire[0]) + len(it.wire[1]) + 256 }

// journal is what a source remembers: a bounded stretch of items, which subscribers read
// at their own pace. Positions count items from the first there ever was.
type journal struct {
	maxItems, maxBytes int

	mu    sync.Mutex
	items []item
	base  int // position of items[0]
	bytes int
	next  int64         // seq of the next item
	floor int64         // lowest seq that was not forgotten
	epoch int           // how often everything was rewritten
	moved chan struct{} // closed at the next change
}

func newJournal(maxItems, maxBytes int) *journal {
	return &journal{maxItems: maxItems, maxBytes: maxBytes, next: 1, floor: 1, moved: make(chan struct{})}
}

// add appends what build makes of a sequence number, and forgets what there is no room
// for.
func (j *journal) add(build func(seq int64) item) item {
	j.mu.Lock()
	defer j.mu.Unlock()
	it := build(j.next)
	if !it.once {
		it.seq = j.next
		j.next++
	}
	j.append(it)
	return it
}

func (j *journal) append(it item) {
	j.items = append(j.items, it)
	j.bytes += it.size()
	for len(j.items) > 1 && (len(j.items) > j.maxItems || j.bytes > j.maxBytes) {
		j.bytes -= j.items[0].size()
		if !j.items[0].once {
			j.floor = j.items[0].seq + 1
		}
		j.items[0] = item{} // its bytes go at once
		j.items = j.items[1:]
		j.base++
	}
	j.wake()
}

func (j *journal) wake() {
	close(j.moved)
	j.moved = make(chan struct{})
}

// Errors of at.
var (
	errForgotten = errors.New("item was forgotten before it was read")
	errRewritten = errors.New("journal was rewritten")
)

// at is the item of a position of an epoch, or else what is closed when there may be one.
func (j *journal) at(position, epoch int) (it item, wait <-chan struct{}, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch i := position - j.base; {
	case epoch != j.epoch:
		return item{}, nil, errRewritten
	case i < 0:
		return item{}, nil, errForgotten
	case i >= len(j.items):
		return item{}, j.moved, nil
	default:
		return j.items[i], nil, nil
	}
}

// extent is what the journal holds from some time on: the position of the first item and
// of the next one, the lowest seq that is not too old, and the next one.
type extent struct {
	first, end     int
	floor, nextSeq int64
	epoch          int
}

func (j *journal) extent(oldest time.Time) extent {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := extent{end: j.base + len(j.items), floor: j.floor, nextSeq: j.next, epoch: j.epoch}
	e.first = e.end
	for i, it := range j.items {
		if it.once {
			continue
		}
		if it.at >= oldest.UnixMicro() {
			e.first = j.base + i
			break
		}
		e.floor = it.seq + 1
	}
	return e
}

// find is the position of the first item that is wanted, the end if none is.
func (j *journal) find(from int, wanted func(item) bool) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := max(0, from-j.base); i < len(j.items); i++ {
		if it := j.items[i]; !it.once && wanted(it) {
			return j.base + i
		}
	}
	return j.base + len(j.items)
}

// rewrite replaces all items by what change leaves of them, and begins an epoch: whoever is
// connected has lost its place.
func (j *journal) rewrite(change func(items []item, next int64) ([]item, int64)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	end := j.base + len(j.items)
	j.items, j.next = change(j.items, j.next)
	if len(j.items) == 0 {
		j.floor = j.next
	}
	j.base, j.bytes = end, 0
	j.epoch++
	for _, it := range j.items {
		j.bytes += it.size()
	}
	j.wake()
}
