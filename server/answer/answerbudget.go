package answer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultAnswerBytes is the budget of the bytes of answers under way.
	DefaultAnswerBytes = 64 << 20
	// LeastAnswerBytes has room for some of the largest answers that there are.
	LeastAnswerBytes = 16 << 20

	// maxPrinting is how many answers to clients without a key are read and printed
	// at once. The processors are the bound, and administrators need them too.
	maxPrinting = 8
	// answerPatience is how long a request may wait for the budget.
	answerPatience = 15 * time.Second
)

var errAnswersFull = errors.New("all the room for answers is taken")

// answerBudget bounds the bytes of answers under way, and how many are printed at
// once. What has no room waits in turn, and meanwhile the answers that are taken at the
// lowest rates are cut off, one after the other, until it has. Answers to administrators
// are charged and never wait, and they are cut only when they exceed the budget by
// themselves.
type answerBudget struct {
	limit    int64
	printers int
	grace    time.Duration
	patience time.Duration

	mu       sync.Mutex
	held     int64 // bytes charged
	keyed    int64 // of them, of answers to administrators
	freeing  int64 // of them, of answers that were cut and have not ended yet
	printing int
	open     map[*answerShare]struct{}
	going    []*answerTurn // of answers that have begun and go on: they come first
	fresh    []*answerTurn
	timer    *time.Timer // looks again for who gives way; nil: nobody waits
	cuts     uint64
}

// answerTurn is an answer that waits to be printed.
type answerTurn struct {
	share *answerShare
	bytes int64
	ready chan struct{}
	cut   bool // it waits no more, since its answer was cut; set before ready is closed
}

func newAnswerBudget(limit int64) *answerBudget {
	return &answerBudget{
		limit: limit, printers: maxPrinting, grace: answerGrace, patience: answerPatience,
		open: map[*answerShare]struct{}{},
	}
}

// acquire waits until the answer may be printed, with so many bytes more charged. It
// returns errAnswersFull when that takes too long.
func (b *answerBudget) acquire(ctx context.Context, s *answerShare, bytes int64) error {
	b.mu.Lock()
	t := &answerTurn{share: s, bytes: min(bytes, b.limit), ready: make(chan struct{})}
	patience := b.patience
	if s.printing { // nothing has been written meanwhile
		b.mu.Unlock()
		return nil
	}
	if s.held > 0 {
		b.going = append(b.going, t)
	} else {
		b.fresh = append(b.fresh, t)
	}
	b.advance()
	b.mu.Unlock()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-t.ready:
		if t.cut {
			return errAnswersFull
		}
		return nil
	case <-ctx.Done():
	case <-late.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.printing { // it came in the same moment
		return nil
	}
	same := func(o *answerTurn) bool { return o == t }
	b.going, b.fresh = slices.DeleteFunc(b.going, same), slices.DeleteFunc(b.fresh, same)
	b.advance()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errAnswersFull
}

// printed ends the printing of an answer.
func (b *answerBudget) printed(s *answerShare) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.printing {
		s.printing = false
		b.printing--
		b.advance()
	}
}

// charge sets what an answer takes. It does not wait: what is over the limit is made
// up for by whoever takes his answer slowest, and by those who wait.
func (b *answerBudget) charge(s *answerShare, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(s, bytes)
	b.advance()
}

// release ends an answer.
func (b *answerBudget) release(s *answerShare) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.printing {
		s.printing = false
		b.printing--
	}
	b.set(s, 0)
	delete(b.open, s)
	b.advance()
}

func (b *answerBudget) set(s *answerShare, bytes int64) {
	if bytes > 0 {
		b.open[s] = struct{}{}
	}
	b.held += bytes - s.held
	if !s.public {
		b.keyed += bytes - s.held
	}
	if s.cut {
		b.freeing += bytes - s.held
	}
	s.held = bytes
}

// advance lets those go on for whom there is room, and cuts off who keeps the next
// one waiting. The caller holds the lock.
func (b *answerBudget) advance() {
	for len(b.going) > 0 && b.printing < b.printers && b.held <= b.limit {
		b.admit(&b.going)
	}
	for len(b.fresh) > 0 && b.printing < b.printers && b.held+b.fresh[0].bytes <= b.limit {
		b.admit(&b.fresh)
	}
	for b.lacks() {
		s := b.slowest()
		if s == nil {
			b.lookLater()
			return
		}
		b.cut(s)
	}
}

// cut ends an answer that is under way. Its bytes are free when its handler has ended.
func (b *answerBudget) cut(s *answerShare) {
	s.cut = true
	b.freeing += s.held
	b.cuts++
	s.breakOff()
	if i := slices.IndexFunc(b.going, func(t *answerTurn) bool { return t.share == s }); i >= 0 {
		b.going[i].cut = true
		close(b.going[i].ready)
		b.going = slices.Delete(b.going, i, i+1)
	}
}

func (b *answerBudget) admit(queue *[]*answerTurn) {
	t := (*queue)[0]
	*queue = slices.Delete(*queue, 0, 1)
	b.printing++
	t.share.printing = true
	b.set(t.share, t.share.held+t.bytes)
	close(t.ready)
}

// lacks reports whether there is too little room for what is there and for the next,
// also when those have ended that were cut.
func (b *answerBudget) lacks() bool {
	need := b.held - b.freeing
	if len(b.fresh) > 0 {
		need += b.fresh[0].bytes
	}
	return need > b.limit
}

// slowest is the answer that is taken at the lowest rate, and of several such the one
// whose client has been waited for longest. It is nil while that is still new, or if all
// are taken so fast that they end by themselves.
func (b *answerBudget) slowest() (slowest *answerShare) {
	least := taking{rate: answerFast}
	for s := range b.open {
		if s.cut || s.printing || !s.public && b.keyed <= b.limit {
			continue
		}
		if t := s.taking(); t.slower(least) {
			slowest, least = s, t
		}
	}
	if least.waited < b.grace {
		return nil
	}
	return slowest
}

// lookLater has advance called again when the grace of somebody may have ended.
func (b *answerBudget) lookLater() {
	if b.timer != nil {
		return
	}
	b.timer = time.AfterFunc(b.grace/4, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.timer = nil
		b.advance()
	})
}
