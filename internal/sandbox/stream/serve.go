package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// Bounds of a connection.
const (
	writeWait = 30 * time.Second // for a frame to be taken
	pingEvery = 30 * time.Second
)

// refuse answers before the connection is a websocket.
func refuse(w http.ResponseWriter, status int, name, message string) {
	body, _ := json.Marshal(map[string]string{"error": name, "message": message}) // it never fails
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // who has gone needs no answer
}

// cutter lets no more than so many bytes through when it is armed.
type cutter struct {
	net.Conn
	left atomic.Int64 // negative: all
}

func (c *cutter) Write(b []byte) (int, error) {
	left := c.left.Load()
	if left < 0 || int64(len(b)) <= left {
		if left >= 0 {
			c.left.Add(-int64(len(b)))
		}
		return c.Conn.Write(b)
	}
	_, _ = c.Conn.Write(b[:left]) // the connection ends here
	c.left.Store(0)
	return 0, errors.Join(errors.New("cut in the middle of a frame"), c.Close())
}

// cuttable is a response whose connection can be cut.
type cuttable struct {
	http.ResponseWriter
	conn *cutter
}

// Hijack takes the connection over, as websocket.Accept does.
func (c *cuttable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c.conn = &cutter{Conn: conn}
	c.conn.left.Store(-1)
	buffers.Writer.Reset(c.conn)
	return c.conn, buffers, nil
}

// subscription is one subscriber at a source.
type subscription struct {
	source *Source
	conn   *websocket.Conn
	wire   *cutter
	typ    websocket.MessageType
	shape  int // of the wire
	at     int // position
	joined int // position at which it connected
	epoch  int // of the journal
	first  []byte
	wanted func(item) bool
	hangUp <-chan struct{}
}

// accept makes a websocket of the request.
func (u *subscription) accept(w http.ResponseWriter, r *http.Request) error {
	c := &cuttable{ResponseWriter: w}
	conn, err := websocket.Accept(c, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, Subprotocols: []string{"xrpc.v1.json"}, CompressionMode: websocket.CompressionDisabled,
	})
	u.conn, u.wire = conn, c.conn
	return err
}

// serve sends items, and reads what the client says, until one of them ends or the client
// says what it may not.
func (u *subscription) serve(ctx context.Context, said func(message []byte) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer cancel()
		u.conn.SetReadLimit(maxUpdate)
		for {
			_, message, err := u.conn.Read(ctx)
			if err != nil {
				return
			}
			if err := said(message); err != nil {
				_ = u.conn.Close(websocket.StatusPolicyViolation, err.Error())
				return
			}
		}
	}()
	u.run(ctx)
	cancel()
	<-read
}

// run sends items until the client goes, the source hangs up, or the subscriber has fallen
// behind what is remembered.
func (u *subscription) run(ctx context.Context) {
	defer func() { _ = u.conn.CloseNow() }()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	if u.first != nil && u.write(ctx, u.first) != nil {
		return
	}
	for {
		it, wait, err := u.source.journal.at(u.at, u.epoch)
		switch {
		case errors.Is(err, errForgotten):
			u.tooSlow(ctx)
			return
		case err != nil:
			return
		case wait == nil:
			if u.at++; it.once && u.at <= u.joined || !u.wanted(it) {
				continue
			}
			if !u.send(ctx, ping.C, it.wire[u.shape]) {
				return
			}
		case !u.wait(ctx, ping.C, wait):
			return
		}
	}
}

// wait waits for a signal and reports whether the subscription goes on.
func (u *subscription) wait(ctx context.Context, ping <-chan time.Time, signal <-chan struct{}) bool {
	for {
		select {
		case <-signal:
			return true
		case <-ping:
			if !u.ping(ctx) {
				return false
			}
		case <-u.hangUp:
			return false
		case <-ctx.Done():
			_ = u.conn.Close(websocket.StatusGoingAway, "")
			return false
		}
	}
}

func (u *subscription) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	return u.conn.Ping(ctx) == nil
}

// send sends one frame, with what the faults of the source want.
func (u *subscription) send(ctx context.Context, ping <-chan time.Time, frame []byte) bool {
	todo := u.source.sending()
	for todo.stalled != nil {
		if !u.wait(ctx, ping, todo.stalled) {
			return false
		}
		todo = u.source.sending()
	}
	if todo.slow > 0 {
		timer := time.NewTimer(todo.slow)
		defer timer.Stop()
		done := make(chan struct{})
		stop := context.AfterFunc(ctx, func() { close(done) })
		defer stop()
		select {
		case <-timer.C:
		case <-u.hangUp:
			return false
		case <-done:
			return false
		}
	}
	if todo.cut {
		u.wire.left.Store(int64(len(frame)) / 2)
	}
	for range todo.times {
		if u.write(ctx, frame) != nil {
			return false
		}
	}
	return true
}

func (u *subscription) write(ctx context.Context, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	return u.conn.Write(ctx, u.typ, frame)
}

// tooSlow says why the connection ends.
func (u *subscription) tooSlow(ctx context.Context) {
	frame := []byte(`{"$type":"error","error":"ConsumerTooSlow","message":"the subscriber has fallen behind what is remembered"}`)
	if u.typ == websocket.MessageBinary {
		frame = errorFrame("ConsumerTooSlow", "the subscriber has fallen behind what is remembered")
	}
	if u.write(ctx, frame) == nil {
		_ = u.conn.Close(websocket.StatusPolicyViolation, "ConsumerTooSlow")
	}
}

// repos serves subscribeRepos. A cursor is inclusive, 0 means the oldest that there is,
// none means live.
func (s *Source) repos() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor, given, ok := cursorOf(r)
		if !ok {
			refuse(w, http.StatusBadRequest, "InvalidRequest", "cursor is not an integer")
			return
		}
		hangUp, ok := s.enter()
		if !ok {
			s.fire("refuse")
			refuse(w, http.StatusServiceUnavailable, "Unavailable", "try again later")
			return
		}
		defer s.leave()
		u := &subscription{source: s, hangUp: hangUp, typ: websocket.MessageBinary, wanted: func(item) bool { return true }}
		goesOn := u.beginRepos(cursor, given)
		if u.accept(w, r) != nil {
			return
		}
		if goesOn {
			u.serve(r.Context(), func([]byte) error { return nil })
			return
		}
		if u.write(r.Context(), u.first) == nil {
			_ = u.conn.Close(websocket.StatusPolicyViolation, "FutureCursor")
		}
	})
}

// beginRepos finds where a subscription begins, and what is said first. It reports whether
// anything follows.
func (u *subscription) beginRepos(cursor int64, given bool) bool {
	e := u.source.journal.extent(u.source.oldest())
	u.joined, u.at, u.epoch = e.end, e.end, e.epoch
	switch {
	case !given:
		return true
	case cursor >= e.nextSeq && !u.source.quiet():
		u.first = errorFrame("FutureCursor", "Cursor in the future.")
		return false
	case cursor >= e.nextSeq:
		return true // live, without a word
	case cursor > 0 && cursor < e.floor && !u.source.quiet():
		u.first, _ = infoFrame("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events") // to memory
	}
	u.at = u.source.journal.find(e.first, func(it item) bool { return it.seq >= cursor })
	return true
}

// quiet reports whether the source says nothing about cursors that it does not hold, as
// indigo's relay does.
func (s *Source) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clamps {
		s.fired["clamp"]++
	}
	return s.clamps
}

func cursorOf(r *http.Request) (cursor int64, given, ok bool) {
	text := r.URL.Query().Get("cursor")
	if text == "" {
		return 0, false, true
	}
	cursor, err := strconv.ParseInt(text, 10, 64)
	return cursor, true, err == nil && cursor >= 0
}
