package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// watchEvery is how often a watched job is looked at: as often as its streams may
// have news. Looking beats being told of commits, since what a job waits for and
// how fast it is change without one.
const watchEvery = 250 * time.Millisecond

// watches follows the jobs that somebody watches, each with one goroutine however
// many do: a job is read and encoded once for all.
type watches struct {
	every time.Duration
	look  func(ctx context.Context, id uuid.UUID) (jobDetail, error)

	mu   sync.Mutex
	jobs map[uuid.UUID]*watched
}

// watched is a job that is watched.
type watched struct {
	streams int           // guarded by watches.mu
	stop    func()        // ends follow
	ended   chan struct{} // closed when follow has ended

	mu   sync.Mutex
	now  glimpse
	news chan struct{} // closed when now is another
}

// glimpse is a job at one moment. Whoever comes late finds only the newest one:
// nothing is kept for those who are slow.
type glimpse struct {
	event []byte // the job as an event; nil before the first look
	final bool
	err   error // why the job is not looked at any more
}

// join begins to watch a job. leave must be called in the end.
func (ws *watches) join(ctx context.Context, id uuid.UUID) *watched {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.jobs[id]
	if w == nil {
		w = &watched{ended: make(chan struct{}), news: make(chan struct{})}
		// It outlives the request that happened to be the first.
		ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
		ws.jobs[id] = w
		go ws.follow(ctx, id, w)
	}
	w.streams++
	return w
}

// leave ends to watch a job. With the last one it waits for what join has started.
func (ws *watches) leave(id uuid.UUID, w *watched) {
	ws.mu.Lock()
	w.streams--
	last := w.streams == 0
	if last {
		delete(ws.jobs, id)
	}
	ws.mu.Unlock()
	if last {
		w.stop()
		<-w.ended
	}
}

// follow looks at a job until it is final, or nobody watches it any more.
func (ws *watches) follow(ctx context.Context, id uuid.UUID, w *watched) {
	defer close(w.ended)
	tick := time.NewTicker(ws.every)
	defer tick.Stop()
	var last []byte
	for {
		g := ws.glimpse(ctx, id)
		if g.err != nil || !bytes.Equal(g.event, last) {
			w.show(g)
			last = g.event
		}
		if g.final || g.err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (ws *watches) glimpse(ctx context.Context, id uuid.UUID) glimpse {
	job, err := ws.look(ctx, id)
	if err != nil {
		return glimpse{err: err}
	}
	buf := bytes.NewBufferString("event: job\ndata: ")
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)     // as in every other answer
	err = enc.Encode(job)        // on one line, which it ends
	_, _ = buf.WriteString("\n") // a buffer takes everything
	return glimpse{event: buf.Bytes(), final: job.Status.Final(), err: err}
}

func (w *watched) show(g glimpse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = g
	close(w.news)
	w.news = make(chan struct{})
}

// glimpse is the newest one, and a channel that is closed when there is another.
func (w *watched) glimpse() (glimpse, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.news
}

// lookAtJob is a job as its own route shows it.
func (s *Server) lookAtJob(ctx context.Context, id uuid.UUID) (jobDetail, error) {
	job, err := s.cfg.Store.Job(ctx, id)
	if err != nil {
		return jobDetail{}, fmt.Errorf("watch job: %w", err)
	}
	return s.newJobDetail(ctx, job)
}
