package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
)

// broadcasters are the jobs that somebody watches, each with one goroutine however
// many do: a job is read and encoded once for all.
type broadcasters struct {
	out  *answer.Answers
	look func(ctx context.Context, id uuid.UUID) (api.JobDetail, error)

	mu   sync.Mutex
	jobs map[uuid.UUID]*broadcaster
}

// broadcaster shows one job to its subscribers.
type broadcaster struct {
	subscribers int           // guarded by broadcasters.mu
	stop        func()        // ends follow
	ended       chan struct{} // closed when follow has ended

	mu      sync.Mutex
	latest  snapshot
	changed chan struct{} // closed when latest is another
}

// snapshot is a job at one moment. A slow subscriber finds only the newest one: there is
// no queue of them.
type snapshot struct {
	event []byte // the job as an event; nil before the first look
	final bool
	err   error // why the job is not looked at any more
}

// subscribe begins to watch a job. unsubscribe must be called in the end.
func (bs *broadcasters) subscribe(ctx context.Context, id uuid.UUID) *broadcaster {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.jobs[id]
	if b == nil {
		b = &broadcaster{ended: make(chan struct{}), changed: make(chan struct{})}
		// It outlives the request that happened to be the first.
		ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
		bs.jobs[id] = b
		go bs.follow(ctx, id, b)
	}
	b.subscribers++
	return b
}

// unsubscribe ends to watch a job. With the last one it waits for what subscribe has
// started.
func (bs *broadcasters) unsubscribe(id uuid.UUID, b *broadcaster) {
	bs.mu.Lock()
	b.subscribers--
	last := b.subscribers == 0
	if last {
		delete(bs.jobs, id)
	}
	bs.mu.Unlock()
	if last {
		b.stop()
		<-b.ended
	}
}

// follow looks at a job until it is final, or nobody watches it any more.
func (bs *broadcasters) follow(ctx context.Context, id uuid.UUID, b *broadcaster) {
	defer close(b.ended)
	tick := time.NewTicker(bs.out.Bounds.Look)
	defer tick.Stop()
	var last []byte
	for {
		now := bs.takeSnapshot(ctx, id)
		if now.err != nil || !bytes.Equal(now.event, last) {
			b.publish(now)
			last = now.event
		}
		if now.final || now.err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (bs *broadcasters) takeSnapshot(ctx context.Context, id uuid.UUID) snapshot {
	job, err := bs.look(ctx, id)
	if err != nil {
		return snapshot{err: err}
	}
	buf := bytes.NewBufferString("event: job\ndata: ")
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)     // as in every other answer
	err = enc.Encode(job)        // on one line, which it ends
	_, _ = buf.WriteString("\n") // a buffer takes everything
	return snapshot{event: buf.Bytes(), final: job.Status.Final(), err: err}
}

func (b *broadcaster) publish(now snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latest = now
	close(b.changed)
	b.changed = make(chan struct{})
}

// snapshot is the newest one, and a channel that is closed when there is another.
func (b *broadcaster) snapshot() (snapshot, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latest, b.changed
}

// lookAtJob is a job as its own route shows it.
func (ctl *Control) lookAtJob(ctx context.Context, id uuid.UUID) (api.JobDetail, error) {
	job, err := ctl.cfg.Store.Jobs.Job(ctx, id)
	if err != nil {
		return api.JobDetail{}, fmt.Errorf("watch job: %w", err)
	}
	return ctl.newJobDetail(ctx, job)
}

// watched is how many jobs are watched.
func (bs *broadcasters) watched() int {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return len(bs.jobs)
}
