package control

import (
	"fmt"
	"net/http"
	"time"

	"appview/server/answer"
)

const (
	streamRetry = 2 * time.Second // that a client waits before it asks again

	// streamSendBuffer is what the system keeps of what a client has not taken.
	// Left alone it grows to megabytes for a client that takes nothing.
	streamSendBuffer = 16 << 10
)

// streamJob answers with a job's state as Server-Sent Events: as it is, then
// whenever it has changed, until it is final. Every event is the whole state, so
// that a client that missed some, or comes back with a Last-Event-ID, has missed
// nothing.
func (ctl *Control) streamJob(w http.ResponseWriter, r *http.Request) error {
	if _, err := answer.Query(r); err != nil {
		return err
	}
	job, err := ctl.job(r)
	if err != nil {
		return err
	}
	free, err := answer.TakePlace(ctl.out.Bounds.Streams, "streams of events")
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
	answer.BoundSendBuffer(r, streamSendBuffer)
	updates := ctl.broadcasters.subscribe(r.Context(), job.ID)
	defer ctl.broadcasters.unsubscribe(job.ID, updates)
	e := &eventWriter{w: w, rc: http.NewResponseController(w), timeout: ctl.out.Bounds.Event}
	if err := e.write(fmt.Appendf(nil, "retry: %d\n\n", streamRetry.Milliseconds())); err != nil {
		return ctl.cutStream(r, err)
	}
	beat := time.NewTimer(ctl.out.Bounds.Beat)
	defer beat.Stop()
	for shown := (<-chan struct{})(nil); ; {
		now, changed := updates.snapshot()
		switch {
		case now.err != nil:
			return now.err
		case changed != shown && now.event != nil:
			err = e.write(now.event)
		case time.Since(e.at) >= ctl.out.Bounds.Beat:
			err = e.write([]byte(": still here\n\n"))
		}
		if err != nil {
			return ctl.cutStream(r, err)
		}
		if now.final {
			return nil
		}
		shown = changed
		beat.Reset(ctl.out.Bounds.Beat - time.Since(e.at))
		select {
		case <-changed:
		case <-beat.C:
		case <-answer.Stopping(r):
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// cutStream ends a stream whose client does not take it. It breaks the connection.
func (ctl *Control) cutStream(r *http.Request, err error) error {
	ctl.cfg.Log.DebugContext(r.Context(), "stream of events cut off", "path", r.URL.Path, "err", err)
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
