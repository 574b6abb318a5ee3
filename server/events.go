package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Bounds of a stream of events. The client may be a browser that somebody has
// left open for a week.
const (
	maxStreams         = 256
	streamBeat         = 15 * time.Second // at most without a word: proxies cut what is silent for long
	streamWriteTimeout = 10 * time.Second
	streamRetry        = 2 * time.Second // that a client waits before it asks again

	// streamSendBuffer is what the system keeps of what a client has not taken.
	// Left alone it grows to megabytes for a client that takes nothing.
	streamSendBuffer = 16 << 10
)

// streaming are the times of a stream, which tests shorten.
type streaming struct {
	beat, write time.Duration
}

// streamJob answers with a job's state as Server-Sent Events: as it is, then
// whenever it has changed, until it is final. Every event is the whole state, so
// that a client that missed some, or comes back with a Last-Event-ID, has missed
// nothing.
func (s *Server) streamJob(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	job, err := s.job(r)
	if err != nil {
		return err
	}
	free, err := take(s.streams, "streams of events")
	if err != nil {
		return err
	}
	defer free()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Connection", "close") // its small buffer would slow down other answers
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	boundSendBuffer(r, streamSendBuffer)
	updates := s.broadcasters.subscribe(r.Context(), job.ID)
	defer s.broadcasters.unsubscribe(job.ID, updates)
	e := &eventWriter{w: w, rc: http.NewResponseController(w), timeout: s.streaming.write}
	if err := e.write(fmt.Appendf(nil, "retry: %d\n\n", streamRetry.Milliseconds())); err != nil {
		return s.cutStream(r, err)
	}
	beat := time.NewTimer(s.streaming.beat)
	defer beat.Stop()
	for shown := (<-chan struct{})(nil); ; {
		now, changed := updates.snapshot()
		switch {
		case now.err != nil:
			return now.err
		case changed != shown && now.event != nil:
			err = e.write(now.event)
		case time.Since(e.at) >= s.streaming.beat:
			err = e.write([]byte(": still here\n\n"))
		}
		if err != nil {
			return s.cutStream(r, err)
		}
		if now.final {
			return nil
		}
		shown = changed
		beat.Reset(s.streaming.beat - time.Since(e.at))
		select {
		case <-changed:
		case <-beat.C:
		case <-stopped(r):
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// cutStream ends a stream whose client does not take it. It breaks the connection.
func (s *Server) cutStream(r *http.Request, err error) error {
	s.log.DebugContext(r.Context(), "stream of events cut off", "path", r.URL.Path, "err", err)
	panic(http.ErrAbortHandler)
}

// eventWriter writes to a client, which must take every write in time.
type eventWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	at      time.Time // of the last write
}

func (e *eventWriter) write(p []byte) error {
	e.at = time.Now()
	if err := e.rc.SetWriteDeadline(e.at.Add(e.timeout)); err != nil {
		return fmt.Errorf("bound a write: %w", err)
	}
	if _, err := e.w.Write(p); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := e.rc.Flush(); err != nil {
		return fmt.Errorf("send event: %w", err)
	}
	return nil
}

// connection is the key under which the context of a request holds its net.Conn.
type connection struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, c)
}

// boundSendBuffer bounds what the system keeps for the client of r.
func boundSendBuffer(r *http.Request, bytes int) {
	if c, is := r.Context().Value(connection{}).(interface{ SetWriteBuffer(int) error }); is {
		_ = c.SetWriteBuffer(bytes) // a system that refuses has a bound of its own
	}
}

// dropUnsent has the system forget what the client has not taken when its
// connection ends: it would wait minutes for somebody who takes nothing.
func dropUnsent(conn any) {
	if c, is := conn.(interface{ SetLinger(int) error }); is {
		_ = c.SetLinger(0) // without it the system has a bound of its own
	}
}

// stopped is closed when the server begins to stop.
func stopped(r *http.Request) <-chan struct{} {
	if stop, isRun := r.Context().Value(stopping{}).(context.Context); isRun {
		return stop.Done()
	}
	return nil
}
