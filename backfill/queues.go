package backfill

import (
	"container/heap"
	"maps"
	"slices"
	"sync"
	"time"
)

// queues are the hosts that a job may owe something at.
type queues struct {
	mu      sync.Mutex
	hosts   map[string]*queue
	line    []string      // hosts to be swept, first come first served
	timers  timers        // hosts to come back to
	active  int           // sweeps under way that have a slot
	yielded int           // sweeps under way that have given theirs to others
	changed chan struct{} // something was added to the line, or a sweep ended
}

// queue is one host's queue, as far as it is known without reading it.
type queue struct {
	inLine, active bool
	yielded        bool      // active, without a slot
	again          bool      // something was put into the queue since the sweep began to walk it
	parked         bool      // the host is to be left alone until due
	due            time.Time // when to come back; zero: when something is put in

	added  chan struct{} // something was put into the queue during the sweep
	cancel func(error)   // ends the sweep under way
	closed chan struct{} // not nil: the host is not swept, and this is closed when no sweep is under way
}

// timer is when to come back to a host. It is out of date when the queue's due
// is another time.
type timer struct {
	due  time.Time
	host string
}

// timers is a heap of timers, the earliest first.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push is for the heap alone.
func (t *timers) Push(x any) {
	if x, ok := x.(timer); ok {
		*t = append(*t, x)
	}
}

// Pop is for the heap alone.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// ready puts a host into the line: there is something in its queue.
func (q *queues) ready(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hosts == nil {
		q.hosts = map[string]*queue{}
	}
	h := q.hosts[host]
	if h == nil {
		h = &queue{}
		q.hosts[host] = h
	}
	switch {
	case h.active, h.closed != nil:
		h.again = true
		notify(h.added)
	case !h.inLine && !h.parked:
		q.enqueue(host, h)
		notify(q.changed)
	}
}

func (q *queues) enqueue(host string, h *queue) {
	h.due, h.parked, h.inLine = time.Time{}, false, true
	q.line = append(q.line, host)
}

// take returns the next host to sweep, after putting those that are due into the
// line, or else the time to look again. idle says that no sweep is under way and
// none is to come.
func (q *queues) take(now time.Time, limit int) (host string, next time.Time, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.timers) > 0 {
		first := q.timers[0]
		h := q.hosts[first.host]
		current := h != nil && h.due.Equal(first.due) && h.closed == nil
		if current && first.due.After(now) {
			next = first.due
			break
		}
		heap.Pop(&q.timers)
		if current {
			q.enqueue(first.host, h)
		}
	}
	if len(q.line) > 0 && q.active < limit {
		host, q.line = q.line[0], q.line[1:]
		h := q.hosts[host]
		h.inLine, h.active, h.added = false, true, make(chan struct{}, 1)
		q.active++
		return host, next, false
	}
	return "", next, q.active+q.yielded == 0 && len(q.line) == 0 && next.IsZero()
}

// yieldSlot gives the slot of a sweep under way to the next in line.
func (q *queues) yieldSlot(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hosts[host].yielded = true
	q.active--
	q.yielded++
	notify(q.changed)
}

// retakeSlot gives a sweep under way its slot back, if nobody else waits for it.
func (q *queues) retakeSlot(host string, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[host]
	if h.closed != nil || len(q.line) > 0 || q.active >= limit {
		return false
	}
	h.yielded = false
	q.yielded--
	q.active++
	return true
}

// walk notes that the sweep under way begins to walk the queue: what is there is no news.
func (q *queues) walk(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hosts[host].again = false
}

// added tells the sweep under way that something was put into the queue.
func (q *queues) added(host string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hosts[host].added
}

// end notes how a sweep has ended.
func (q *queues) end(host string, result scanResult) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[host]
	if h.yielded {
		q.yielded--
	} else {
		q.active--
	}
	h.active, h.yielded, h.cancel = false, false, nil
	if h.closed != nil {
		close(h.closed)
		return
	}
	switch {
	case h.again && !result.parked:
		q.enqueue(host, h)
	case !result.next.IsZero():
		h.due, h.parked = result.next, result.parked
		heap.Push(&q.timers, timer{due: result.next, host: host})
	default:
		delete(q.hosts, host)
	}
	h.again = false
	notify(q.changed)
}

// owing are the hosts that something may be owed at.
func (q *queues) owing() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.hosts))
}

// sweep notes how to end the sweep under way at a host.
func (q *queues) sweep(host string, cancel func(error)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[host]
	h.cancel = cancel
	if h.closed != nil {
		cancel(errSilent)
	}
}

// close has a host left alone until open, and ends the sweep under way. What it returns
// is closed when there is none any more.
func (q *queues) close(host string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	closed := make(chan struct{})
	h := q.hosts[host]
	if h == nil {
		h = &queue{}
		q.hosts[host] = h
	}
	h.closed = closed
	switch {
	case !h.active:
		close(closed)
	case h.cancel != nil:
		h.cancel(errSilent)
	}
	if h.inLine {
		h.inLine = false
		q.line = slices.DeleteFunc(q.line, func(other string) bool { return other == host })
	}
	return closed
}

// open ends close: nothing that was in the queue then is still owed.
func (q *queues) open(host string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hosts[host]
	h.closed = nil
	if h.again {
		h.again = false
		q.enqueue(host, h)
	} else {
		delete(q.hosts, host)
	}
	notify(q.changed)
}

// parked reports whether every host that is owed something is to be left alone.
func (q *queues) parked() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.hosts) > 0 && q.active+q.yielded == 0 && len(q.line) == 0
}
